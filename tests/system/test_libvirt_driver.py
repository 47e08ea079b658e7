"""The libvirt driver on a private libvirtd with real QEMU guests: the whole life, and nothing left behind."""

import hashlib
import os
import signal
import tempfile
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import libvirt
import pytest

from compute_agent.agent import Agent
from compute_agent.heartbeat import HostOptions
from compute_agent.journal.journal import Journal
from compute_agent.libvirt_driver import connect, libvirtd
from compute_agent.libvirt_driver.connection import _EventLoop, answers
from compute_agent.libvirt_driver.driver import LibvirtDriver
from compute_agent.storage.backend import BaseImage
from compute_agent.storage.qcow2 import Qcow2Disks
from controller.conf.settings import Compute, General, Network, Settings
from controller.domain import names
from controller.domain.errors import CloudError, DiskError, DriverError, ImageFetchError
from controller.domain.guests import Desired, Power
from controller.domain.ids import IdSource
from controller.domain.messages import GuestSpec, HostAccepted, ImageSpec, NicSpec, ReconcileGuests
from controller.programs.run import run
from tests.faults import row
from tests.labs.agent import work_all
from tests.labs.bus import FakeBus
from tests.labs.system.processes import BOOT_SECTOR, INTERFACES, command_line, qemu_pids
from tests.labs.waiting import wait_for

pytestmark = pytest.mark.system

VLAN = 3999
NOW = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    made = replace(
        Settings(),
        general=General(state_dir=str(tmp_path / "s"), cloud_id=IdSource.system().cloud_id(), host="node"),
        network=Network(trunk=""),
        compute=Compute(tcg_cache_mib=16),
    )
    yield made
    libvirtd.stop(made)


@pytest.fixture
def driver(settings: Settings) -> Iterator[LibvirtDriver]:
    made = LibvirtDriver(settings)
    yield made
    made.destroy_all()
    made.close()


@pytest.fixture
def image(settings: Settings) -> ImageSpec:
    settings.image_store.mkdir(parents=True)
    raw, path = settings.image_store / "halt.raw", settings.image_store / "halt.qcow2"
    raw.write_bytes(BOOT_SECTOR.ljust(510, b"\0") + b"\x55\xaa" + bytes(1024 * 1024 - 512))
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(path)])
    content = path.read_bytes()
    return ImageSpec(
        "ami-00000000000000001",
        hashlib.sha256(content).hexdigest(),
        len(content),
        "qcow2",
        path.as_uri(),
        1024 * 1024,
    )


@pytest.fixture
def spec(image: ImageSpec) -> GuestSpec:
    return GuestSpec(
        instance_id=IdSource.system().new("i"),
        generation=1,
        desired=Desired.RUNNING,
        project_id="p",
        name='a <name> & "more"',
        vcpus=1,
        memory_mib=32,
        disk_gib=1,
        image=image,
        nics=(NicSpec("net-1", VLAN, "02:16:3e:00:00:01", "10.99.0.2", 24),),
    )


def interfaces(settings: Settings) -> set[str]:
    return {p.name for p in INTERFACES.glob(f"{names.interface_prefix(settings.general.cloud_id)}*")}


def test_the_whole_life_leaves_nothing_behind(driver: LibvirtDriver, settings: Settings, spec: GuestSpec) -> None:
    guest, cloud = spec.instance_id, settings.general.cloud_id
    bridge, tap = names.bridge_name(cloud, VLAN), names.tap_name(cloud, guest)

    def timed(step: str, call: Callable[[], None]) -> None:
        began = time.monotonic()
        call()
        print(f"{step} {time.monotonic() - began:.3f}")

    assert driver.list_guests() == {}
    timed("spawn_s", lambda: driver.spawn(spec))
    timed("spawn_again_s", lambda: driver.spawn(spec))
    assert driver.list_guests() == {guest: Power.RUNNING}
    assert len(qemu_pids(settings, spec)) == 1
    assert interfaces(settings) == {bridge, tap}
    assert (INTERFACES / bridge / "brif" / tap).exists()
    assert Path(f"/proc/sys/net/ipv6/conf/{bridge}/disable_ipv6").read_text().strip() == "1"
    wait_for(lambda: driver.console(guest, 100) == b"up\n")
    assert spec.image is not None
    assert driver.images() == (spec.image.sha256,)

    timed("shut_off_s", lambda: driver.shut_off(guest, 0.5))
    driver.shut_off(guest, 0.5)
    assert driver.list_guests() == {guest: Power.SHUT_OFF}
    assert interfaces(settings) == {bridge}

    timed("start_s", lambda: driver.start(spec))
    wait_for(lambda: driver.console(guest, 100) == b"up\nup\n")
    timed("reboot_s", lambda: driver.reboot(spec, 0.5))
    wait_for(lambda: driver.console(guest, 100) == b"up\nup\nup\n")
    assert driver.list_guests() == {guest: Power.RUNNING}

    timed("destroy_s", lambda: driver.destroy(guest))
    driver.destroy(guest)
    assert driver.list_guests() == {}
    assert qemu_pids(settings, spec) == set()
    assert interfaces(settings) == {bridge}
    assert list((settings.state_dir / "instances").iterdir()) == []
    assert list((settings.state_dir / "libvirt/etc/qemu").rglob("*.xml")) == []

    driver.destroy_all()
    assert interfaces(settings) == set()
    libvirtd.stop(settings)
    assert libvirtd.pid(settings) is None
    assert [
        p
        for p in map(int, filter(str.isdigit, os.listdir("/proc")))
        if str(settings.state_dir).encode() in command_line(p)
    ] == []


def test_a_failed_rebuild_leaves_the_kept_disk(driver: LibvirtDriver, settings: Settings, spec: GuestSpec) -> None:
    """Only its owner's delete removes that: the database may have been restored to before the first guest."""
    driver.spawn(spec)
    driver.destroy(spec.instance_id, keep=datetime(2026, 1, 1, tzinfo=UTC))
    (kept,) = driver.kept()
    with pytest.raises(DriverError):
        driver.spawn(replace(spec, vcpus=100_000))
    assert driver.list_guests() == {}
    assert list((settings.state_dir / "instances").iterdir()) == []
    assert driver.kept() == [kept]
    driver.destroy(spec.instance_id)
    assert driver.kept() == []


def test_a_killed_libvirtd_is_started_again_and_finds_its_guests(
    driver: LibvirtDriver, settings: Settings, spec: GuestSpec
) -> None:
    driver.spawn(spec)
    before = qemu_pids(settings, spec)
    supervisor = libvirtd.pid(settings)
    daemon = int((settings.state_dir / "libvirt/run/libvirtd.pid").read_text())
    os.kill(daemon, signal.SIGKILL)
    wait_for(lambda: libvirtd.pid(settings) is None)
    assert driver.list_guests() == {spec.instance_id: Power.RUNNING}
    assert libvirtd.pid(settings) not in (None, supervisor)
    assert qemu_pids(settings, spec) == before != set()


@row(
    fault="libvirtd hangs (SIGSTOP)",
    strikes="guests run",
    seen="the agent ends it and starts another; it finds the guests, which noticed nothing",
)
def test_a_libvirtd_that_hangs_is_replaced(
    driver: LibvirtDriver, settings: Settings, spec: GuestSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.spawn(spec)
    before = qemu_pids(settings, spec)
    monkeypatch.setattr(connect, "OPEN_S", 2.0)
    daemon = int((settings.state_dir / "libvirt/run/libvirtd.pid").read_text())
    os.kill(daemon, signal.SIGSTOP)
    newcomer = LibvirtDriver(settings)
    try:
        with ThreadPoolExecutor(3) as pool:
            lists = [pool.submit(newcomer.list_guests) for _ in range(3)]
            assert [each.result(timeout=90) for each in lists] == [{spec.instance_id: Power.RUNNING}] * 3
    finally:
        if command_line(daemon):
            os.kill(daemon, signal.SIGCONT)
        newcomer.close()
    assert qemu_pids(settings, spec) == before != set()
    assert driver.list_guests() == {spec.instance_id: Power.RUNNING}


def test_a_libvirtd_killed_while_it_starts_a_guest(driver: LibvirtDriver, settings: Settings, spec: GuestSpec) -> None:
    driver.spawn(spec)
    libvirtd.stop(settings)
    for pid in qemu_pids(settings, spec):
        os.kill(pid, signal.SIGKILL)
    (note,) = (settings.state_dir / "libvirt/run/libvirt/qemu").glob("*.xml")
    status = ET.parse(note)
    root = status.getroot()
    root.attrib.update(state="paused", reason="starting up", pid="0")
    for job in root.findall("job"):
        root.remove(job)
    ET.SubElement(root, "job", {"type": "none", "async": "start", "flags": "0x0", "asyncStarted": "1795263140908"})
    status.write(note)
    driver.spawn(spec)
    assert len(qemu_pids(settings, spec)) == 1
    driver.destroy(spec.instance_id)
    assert driver.list_guests() == {}


def test_an_event_loop_without_a_thread_is_begun_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one no daemon that hangs is ever given up."""
    over = threading.Event()
    monkeypatch.setattr(_EventLoop, "_run", lambda _: over.wait(30))  # the process has a real one
    events = _EventLoop()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", _no_thread)
        with pytest.raises(RuntimeError):
            events.ensure()
    events.ensure()
    assert events._thread is not None
    assert events._thread.is_alive()
    over.set()
    events._thread.join()


def _no_thread(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


class _FailsToStart:
    """A domain whose start fails between two questions."""

    def isActive(self) -> int:  # noqa: N802 - libvirt's name
        return 1

    def state(self) -> list[int]:
        return [libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_FAILED]


def test_a_guest_whose_start_fails_this_moment_does_not_run(driver: LibvirtDriver) -> None:
    assert not driver._runs(_FailsToStart())


def test_a_slow_guest_holds_up_no_other(driver: LibvirtDriver, settings: Settings, spec: GuestSpec) -> None:
    driver.spawn(spec)
    (pid,) = qemu_pids(settings, spec)
    os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(2) as pool:
        off = pool.submit(driver.shut_off, spec.instance_id, 5)  # QEMU is asked and does not answer
        try:
            wait_for(lambda: off.running())
            lists = pool.submit(lambda: [driver.list_guests() for _ in range(20)])
            assert lists.result(timeout=20) == [{spec.instance_id: Power.RUNNING}] * 20
            assert not off.done()
        finally:
            os.kill(pid, signal.SIGCONT)
    off.result()
    assert driver.list_guests() == {spec.instance_id: Power.SHUT_OFF}


@row(
    fault="a guest's QEMU hangs (SIGSTOP)",
    strikes="the guest is to be shut off",
    seen="its power is taken after the grace, though libvirt still waits for its answer",
)
def test_a_guest_that_hangs_is_shut_off(driver: LibvirtDriver, settings: Settings, spec: GuestSpec) -> None:
    driver.spawn(spec)
    (pid,) = qemu_pids(settings, spec)
    os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        off = pool.submit(driver.shut_off, spec.instance_id, 0.5)
        try:
            off.result(timeout=60)
        finally:
            if command_line(pid):
                os.kill(pid, signal.SIGCONT)
    assert driver.list_guests() == {spec.instance_id: Power.SHUT_OFF}
    driver.start(spec)
    assert driver.list_guests() == {spec.instance_id: Power.RUNNING}


def test_guests_outlive_a_stop_of_libvirtd(driver: LibvirtDriver, settings: Settings, spec: GuestSpec) -> None:
    driver.spawn(spec)
    before = qemu_pids(settings, spec)
    libvirtd.stop(settings)
    assert not answers(libvirtd.socket_uri(settings))
    assert qemu_pids(settings, spec) == before
    assert driver.list_guests() == {spec.instance_id: Power.RUNNING}


def test_a_guest_whose_process_is_killed_is_shut_off(
    driver: LibvirtDriver, settings: Settings, spec: GuestSpec
) -> None:
    driver.spawn(spec)
    for pid in qemu_pids(settings, spec):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: driver.list_guests() == {spec.instance_id: Power.SHUT_OFF})
    driver.start(spec)
    assert driver.list_guests() == {spec.instance_id: Power.RUNNING}


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"memory_mib": 100_000_000}, DriverError, "Starting the guest"),
        ({"image": None}, DriverError, "no image"),
        ({"disk_gib": 8_000_000_000}, DiskError, "Making the disk"),
    ],
)
def test_a_failed_spawn_leaves_nothing_behind(
    driver: LibvirtDriver,
    settings: Settings,
    spec: GuestSpec,
    change: dict[str, object],
    error: type[CloudError],
    words: str,
) -> None:
    with pytest.raises(error, match=words):
        driver.spawn(replace(spec, **change))  # type: ignore[arg-type]
    assert driver.list_guests() == {}
    assert list((settings.state_dir / "instances").glob("*")) == []
    assert not (INTERFACES / names.tap_name(settings.general.cloud_id, spec.instance_id)).exists()


def disk_of(settings: Settings, instance_id: str) -> Path:
    return settings.state_dir / "instances" / instance_id / "disk.qcow2"


def write(disk: Path) -> None:
    """What a guest has written, behind what is its image's."""
    run(["qemu-io", "-f", "qcow2", "-c", "write -P 0x5a 4M 64k", str(disk)])


def assert_readable(disk: Path) -> None:
    """By itself: what the guest has written, and of its image what it has not."""
    raw = disk.with_suffix(".raw")
    run(["qemu-img", "check", "-q", "-f", "qcow2", str(disk)])
    run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(disk), str(raw)])
    with raw.open("rb") as file:
        assert file.read(len(BOOT_SECTOR)) == BOOT_SECTOR
        file.seek(4 * 1024 * 1024)
        assert file.read(64 * 1024) == b"\x5a" * (64 * 1024)
    raw.unlink()


def test_the_disk_of_a_removed_guest_is_kept_and_pruned(
    settings: Settings, driver: LibvirtDriver, spec: GuestSpec, tmp_path: Path
) -> None:
    """It stays readable with its image, which is not evicted, for as long as is said and the clock is known."""
    driver.spawn(spec)
    driver.shut_off(spec.instance_id, 0)
    write(disk_of(settings, spec.instance_id))
    no_cache = LibvirtDriver(replace(settings, compute=replace(settings.compute, image_cache_max_gib=0)))
    now = [NOW]
    options = HostOptions(keep_disks_s=7 * 86400)
    journal = Journal(tmp_path / "journal.db")
    agent = Agent(
        "node",
        no_cache,
        journal,
        FakeBus(),
        lambda: now[0],
        grace_s=0,
        options=options,
        monotonic=lambda: now[0].timestamp(),
    )
    try:
        agent.recover()
        agent.handle(HostAccepted("node", driver.boot_id, 1, NOW.isoformat(), 0, ()))
        absent = replace(spec, generation=2, desired=Desired.ABSENT, keep_disk=True)
        agent.handle(ReconcileGuests("node", (absent,), 1, (NOW + timedelta(seconds=600)).isoformat()))
        work_all(agent)
        assert driver.list_guests() == {}
        assert not disk_of(settings, spec.instance_id).parent.exists()
        assert [(k.instance_id, k.removed_at) for k in driver.kept()] == [(spec.instance_id, NOW.isoformat())]
        (kept,) = (settings.state_dir / "removed-disks").glob("*/disk.qcow2")
        assert driver.kept()[0].size_bytes == kept.stat().st_blocks * 512 > 0
        now[0] += timedelta(days=6)
        agent.tidy()
        assert spec.image is not None
        driver.remove_images([spec.image.sha256])
        assert driver.images() == (spec.image.sha256,)
        assert_readable(kept)
        now[0] += timedelta(days=1, seconds=1)
        agent.tidy()
        assert (driver.kept(), list(kept.parent.parent.iterdir())) == ([], [])
        agent.tidy()
        assert driver.images() == ()
    finally:
        journal.close()
        no_cache.close()


def test_the_owners_delete_removes_at_once_what_was_kept(
    driver: LibvirtDriver, settings: Settings, spec: GuestSpec
) -> None:
    for n in range(2):
        driver.spawn(spec)
        driver.destroy(spec.instance_id, keep=NOW + timedelta(seconds=n))
    driver.destroy(spec.instance_id, keep=NOW + timedelta(seconds=2))  # without a disk there is nothing to keep
    other = replace(spec, instance_id=IdSource.system().new("i"))
    driver.spawn(other)
    driver.destroy(other.instance_id, keep=NOW)
    driver.spawn(spec)
    assert sorted(k.instance_id for k in driver.kept()) == sorted([spec.instance_id] * 2 + [other.instance_id])
    driver.destroy(spec.instance_id)
    assert not disk_of(settings, spec.instance_id).parent.exists()
    assert [k.instance_id for k in driver.kept()] == [other.instance_id]


def test_a_failed_spawn_leaves_a_disk_that_was_there(
    driver: LibvirtDriver, settings: Settings, spec: GuestSpec
) -> None:
    driver.spawn(spec)
    driver.shut_off(spec.instance_id, 0)
    write(disk_of(settings, spec.instance_id))
    driver._remove_domain(spec.instance_id)  # as after the loss of libvirt's own notes
    with pytest.raises(DriverError, match="Starting the guest"):
        driver.spawn(replace(spec, memory_mib=100_000_000))
    assert driver.list_guests() == {}
    assert not (INTERFACES / names.tap_name(settings.general.cloud_id, spec.instance_id)).exists()
    assert_readable(disk_of(settings, spec.instance_id))
    driver.spawn(spec)
    assert driver.list_guests() == {spec.instance_id: Power.RUNNING}


def test_a_kept_disk_over_an_image_on_another_file_system(settings: Settings, image: ImageSpec) -> None:
    """There the base is a symbolic link."""
    instances, instance_id = settings.state_dir / "instances", IdSource.system().new("i")
    disks = Qcow2Disks(instances)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        path = Path(elsewhere) / "halt.qcow2"
        path.write_bytes((settings.image_store / "halt.qcow2").read_bytes())
        disk = disks.create(instance_id, BaseImage(path, "qcow2", image.virtual_size_bytes), 1)
        assert (disk.path.parent / "base").is_symlink()
        write(disk.path)
        disks.set_aside(instance_id, NOW)
        (kept,) = (settings.state_dir / "removed-disks").glob("*/disk.qcow2")
        assert_readable(kept)
        assert Qcow2Disks(instances).images_in_use() == {path.stat().st_ino}


def test_a_disk_that_cannot_be_set_aside_is_as_it_was(settings: Settings, image: ImageSpec) -> None:
    """A guest that was stopped in between has a disk that can be read, and begins again."""
    instance_id = IdSource.system().new("i")
    disks = Qcow2Disks(settings.state_dir / "instances")
    base = BaseImage(settings.image_store / "halt.qcow2", "qcow2", image.virtual_size_bytes)
    write(disks.create(instance_id, base, 1).path)
    (settings.state_dir / "removed-disks").write_text("no folder")
    with pytest.raises(DiskError, match="Setting the disk aside"):
        disks.set_aside(instance_id, NOW)
    assert_readable(disk_of(settings, instance_id))
    (settings.state_dir / "removed-disks").unlink()
    disks.set_aside(instance_id, NOW)
    (kept,) = (settings.state_dir / "removed-disks").glob("*/disk.qcow2")
    assert_readable(kept)


def test_a_larger_image_than_disk_is_refused(driver: LibvirtDriver, settings: Settings, spec: GuestSpec) -> None:
    assert spec.image is not None
    path = settings.image_store / "large.qcow2"
    run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), "3G"])
    content = path.read_bytes()
    image = ImageSpec("ami-2", hashlib.sha256(content).hexdigest(), len(content), "qcow2", path.as_uri())
    with pytest.raises(DiskError, match="needs 3 GiB"):
        driver.spawn(replace(spec, image=image))
    with pytest.raises(ImageFetchError, match="checksum"):
        driver.spawn(replace(spec, image=replace(image, sha256="0" * 64)))
    assert driver.list_guests() == {}


def test_a_state_folder_with_a_long_path(tmp_path: Path, settings: Settings) -> None:
    far = replace(settings, general=replace(settings.general, state_dir=str(tmp_path / ("x" * 90))))
    driver = LibvirtDriver(far)
    try:
        assert driver.list_guests() == {}
        assert len(libvirtd.socket_uri(far)) < 107
    finally:
        driver.close()
        libvirtd.stop(far)
    assert not list(Path("/run").glob(f"pileus-{far.general.cloud_id}*"))
