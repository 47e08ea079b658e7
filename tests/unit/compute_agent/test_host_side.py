"""Disks, consoles, capacity, names and the private libvirtd's settings: what needs no hypervisor."""

import errno
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compute_agent import bridges
from compute_agent.bridges import Bridges
from compute_agent.libvirt_driver import console_log, host, libvirtd
from compute_agent.libvirt_driver.domain_xml import Virtualization
from compute_agent.storage.backend import BaseImage, instance_folder
from compute_agent.storage.qcow2 import Qcow2Disks
from controller.conf.settings import Compute, General, Settings
from controller.domain import names
from controller.domain.errors import CommandFailed, ConfigurationError, DiskError
from controller.programs import ip, qemu_img
from controller.programs.run import run
from tests.labs.agent import instance


@pytest.fixture
def base(tmp_path: Path) -> BaseImage:
    path = tmp_path / "base.raw"
    path.write_bytes(bytes(4096))
    return BaseImage(path, "raw", 4096)


def fake_qemu_img(argv: list[str]) -> str:
    Path(argv[-2]).write_text(argv[-1])
    return ""


def test_a_disk_is_made_once_and_keeps_its_base(
    tmp_path: Path, base: BaseImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qemu_img, "run", fake_qemu_img)
    disks = Qcow2Disks(tmp_path / "instances")
    assert disks.find(instance(1)) is None
    disk = disks.create(instance(1), base, 2)
    assert disk.path.read_text() == str(2 * 1024**3)
    disk.path.write_text("written to")
    assert disks.create(instance(1), base, 2).path.read_text() == "written to"
    assert Qcow2Disks(tmp_path / "instances").images_in_use() == {base.path.stat().st_ino}
    base.path.unlink()
    assert (disk.path.parent / "base").read_bytes() == bytes(4096)
    assert disks.list() == {instance(1)}
    assert disks.used_bytes() > 0
    disks.remove(instance(1))
    disks.remove(instance(1))
    assert disks.find(instance(1)) is None
    assert list(disk.path.parent.iterdir()) == []


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_disk_is_set_aside_and_pruned(tmp_path: Path, base: BaseImage, elsewhere: bool) -> None:
    """Also where the folder of the disks in use is in a file system of its own."""
    folder = tmp_path / "instances"
    in_memory = tmp_path.is_relative_to("/dev/shm")
    with tempfile.TemporaryDirectory(dir="/var/tmp" if in_memory else "/dev/shm") as other:
        if elsewhere:
            folder.symlink_to(other)
            assert folder.stat().st_dev != tmp_path.stat().st_dev
        disks = Qcow2Disks(folder)
        for n in (1, 2):
            disks.create(instance(n), base, 1)
            disks.set_aside(instance(n), datetime(2026, 1, n, tzinfo=UTC))
            disks.set_aside(instance(n), datetime(2026, 2, n, tzinfo=UTC))  # there is none any more
        assert disks.list() == frozenset()
        assert Qcow2Disks(folder).images_in_use() == {base.path.stat().st_ino}
        one, two = disks.kept()
        assert (one.instance_id, one.removed_at) == (instance(1), "2026-01-01T00:00:00+00:00")
        (path,) = (Path(other) if elsewhere else tmp_path).rglob(f"{instance(1)}@*/disk.qcow2")
        assert run(["qemu-img", "check", "-q", str(path)]) == ""
        for _ in range(2):
            disks.drop_kept(one)
        assert disks.kept() == [two]
        disks.drop_kept(two)
        assert (disks.kept(), Qcow2Disks(folder).images_in_use()) == ([], frozenset())


def test_a_failed_disk_leaves_nothing(tmp_path: Path, base: BaseImage, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(argv: list[str]) -> str:
        fake_qemu_img(argv)
        raise CommandFailed(program="qemu-img", status=1, stderr="No space left on device")

    monkeypatch.setattr(qemu_img, "run", fails)
    disks = Qcow2Disks(tmp_path / "instances")
    with pytest.raises(DiskError, match="No space left"):
        disks.create(instance(1), base, 0)
    assert disks.find(instance(1)) is None
    assert list((tmp_path / "instances" / instance(1)).iterdir()) == []


def test_a_disk_smaller_than_its_image_is_refused(tmp_path: Path, base: BaseImage) -> None:
    large = replace(base, virtual_size_bytes=5 * 1024**3 + 1)
    with pytest.raises(DiskError, match="needs 6 GiB, the disk of this instance type has 5 GiB"):
        Qcow2Disks(tmp_path).create(instance(1), large, 5)
    with pytest.raises(DiskError, match="vmdk"):
        Qcow2Disks(tmp_path).create(instance(1), replace(base, format="vmdk"), 5)


@pytest.mark.parametrize(
    "bad", ["../x", "", "i-", "i-../../../../etc/x", "i-0123456789abcdef0/", "i-0123456789ABCDEF0"]
)
def test_an_id_that_is_none_is_no_path(bad: str) -> None:
    with pytest.raises(ValueError, match="not an instance id"):
        instance_folder(Path("/state"), bad)


@given(st.lists(st.binary(max_size=40), max_size=8), st.integers(0, 100))
def test_a_console_keeps_its_end(tmp_path_factory: pytest.TempPathFactory, writes: list[bytes], limit: int) -> None:
    folder = tmp_path_factory.mktemp("console")
    for text in writes:
        with (folder / console_log.NAME).open("ab") as file:
            file.write(text)
        console_log.rotate(folder, 50)
        assert (folder / console_log.NAME).stat().st_size <= 50
    kept = console_log.read_end(folder, limit)
    assert len(kept) <= limit
    assert b"".join(writes).endswith(kept)
    if limit <= 50:
        assert kept == b"".join(writes)[max(0, sum(map(len, writes)) - limit) :]


def test_a_console_is_rotated_on_a_full_disk(tmp_path: Path) -> None:
    console, older = tmp_path / console_log.NAME, tmp_path / console_log.OLDER
    console.write_bytes(b"x" * 100)
    older.symlink_to("/dev/full")
    console_log.rotate(tmp_path, 50)
    assert console.stat().st_size == 0
    assert console_log.read_end(tmp_path, 10) == b""


def test_no_more_of_a_console_is_kept_than_may_be(tmp_path: Path) -> None:
    (tmp_path / console_log.NAME).write_bytes(bytes(range(200)))
    console_log.rotate(tmp_path, 50)
    assert (tmp_path / console_log.OLDER).read_bytes() == bytes(range(150, 200))


def test_kvm_needs_the_device_and_the_cpu(tmp_path: Path) -> None:
    device, cpuinfo = tmp_path / "kvm", tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nflags\t\t: fpu vmx sse\n")
    assert not host.kvm_usable(device, cpuinfo)
    device.touch()
    assert host.kvm_usable(device, cpuinfo)
    cpuinfo.write_text("processor : 0\nflags\t\t: fpu sse vmxfoo\nbugs : svm\n")
    assert not host.kvm_usable(device, cpuinfo)


def test_capacity_is_what_is_configured_else_what_is_there(tmp_path: Path) -> None:
    settings = replace(Settings(), general=General(state_dir=str(tmp_path)))
    there = host.capacity(settings, Virtualization.QEMU, 0)
    assert (there.hypervisor, there.vcpus) == ("qemu", os.cpu_count())
    assert host.capacity(settings, Virtualization.QEMU, 7 * 1024**3).disk_gib - there.disk_gib in (6, 7, 8)
    told = replace(settings, compute=Compute(vcpus=3, memory_mib=4, disk_gib=5))
    assert host.capacity(told, Virtualization.XEN_PV, 0).hypervisor == "xen"
    assert host.capacity(told, Virtualization.KVM, 0).memory_mib == 4


@given(st.integers(0, 2**68 - 1), st.integers(1, 4094), st.integers(0, 15))
def test_names_fit_into_an_interface(number: int, vlan: int, index: int) -> None:
    cloud, guest = "abcdef01", f"i-{number:017x}"
    for name in (names.bridge_name(cloud, vlan), names.trunk_name(cloud, vlan), names.tap_name(cloud, guest, index)):
        assert len(name) <= 15
        assert name.startswith(names.interface_prefix(cloud))


def test_a_kernel_without_vlans_makes_networks_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def add_bridge(name: str) -> None:
        (tmp_path / name / "bridge").mkdir(parents=True)
        (tmp_path / name / "flags").write_text("0x1003\n")

    def add_vlan(name: str, trunk: str, vlan: int) -> None:
        asked.append(vlan)
        number = errno.EOPNOTSUPP
        raise ip.InterfaceError(what=f"Changing {name} on {trunk}", reason=os.strerror(number), errno=number)

    monkeypatch.setattr(ip, "add_bridge", add_bridge)
    monkeypatch.setattr(ip, "add_vlan", add_vlan)
    monkeypatch.setattr(ip, "set_up", lambda *_, **__: None)
    monkeypatch.setattr(bridges, "_INTERFACES", tmp_path)
    (tmp_path / "eth1").mkdir()
    made = Bridges("abcdef01", "eth1")
    assert [made.ensure(100), made.ensure(100), made.ensure(101)] == ["plabcdb100", "plabcdb100", "plabcdb101"]
    assert asked == [100]


def test_the_private_libvirtd_listens_on_its_socket_only(tmp_path: Path) -> None:
    settings = replace(Settings(), general=General(state_dir=str(tmp_path), cloud_id="abcdef01"))
    text = libvirtd._libvirtd_conf(settings)
    assert "listen_tcp = 0" in text
    assert "listen_tls = 0" in text
    assert 'unix_sock_rw_perms = "0700"' in text
    assert text == libvirtd._libvirtd_conf(settings)
    long = replace(settings, general=replace(settings.general, state_dir="/var/lib/" + "x" * 100))
    assert libvirtd.socket_uri(long) == "qemu+unix:///system?socket=/run/pileus-abcdef01/libvirt/libvirt-sock"
    below_run = replace(settings, general=replace(settings.general, state_dir="/run/pileus"))
    with pytest.raises(ConfigurationError, match="below /run"):
        libvirtd._prepare(below_run)


def test_a_pid_that_went_to_somebody_else_is_not_ours(tmp_path: Path) -> None:
    settings = replace(Settings(), general=General(state_dir=str(tmp_path), cloud_id="abcdef01"))
    (tmp_path / "libvirt").mkdir()
    (tmp_path / "libvirt" / "libvirtd.pid").write_text(f"{os.getpid()}\n")
    assert libvirtd.pid(settings) is None
    libvirtd.stop(settings)


def test_no_service_needs_libvirt_to_be_imported() -> None:
    code = "import sys; sys.modules['libvirt'] = None; import compute_agent.service"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
