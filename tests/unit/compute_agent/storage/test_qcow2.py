"""Disks as qcow2 overlays: made once, set aside, removed; no error leaves anything."""

import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from compute_agent.storage.backend import BaseImage, instance_folder
from compute_agent.storage.qcow2 import Qcow2Disks
from controller.domain.errors import CommandFailed, DiskError
from controller.programs import qemu_img
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
