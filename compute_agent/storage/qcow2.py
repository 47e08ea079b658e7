"""Disks as qcow2 overlays: a guest's writes in a file of its own, all else read from the image."""

import errno
import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import structlog

from compute_agent.storage.backend import BaseImage, Disk, DiskBackend, instance_folder
from controller.domain.errors import CommandFailed, DiskError
from controller.domain.ids import INSTANCE, is_id
from controller.domain.messages import KeptDisk
from controller.programs import qemu_img

log = structlog.get_logger(__name__)

_GIB = 1024**3
_FORMATS = ("qcow2", "raw")
_STAMP = "%Y%m%dT%H%M%SZ"
_DISK, _HALF_MADE, _BASE = "disk.qcow2", "disk.half-made", "base"


class Qcow2Disks(DiskBackend):
    """``<instances>/<id>/disk.qcow2`` over ``<instances>/<id>/base``, a hard link to the image.

    The link keeps the image's bytes as long as the guest lives, whatever the cache does. What is set aside is the whole
    folder, as ``<kept>/<id>@<time>``: see ``_kept_folders``.
    """

    def __init__(self, instances: Path) -> None:
        self._instances = instances
        self._kept = _kept_folders(instances)

    def create(self, instance_id: str, base: BaseImage, size_gib: int) -> Disk:
        if found := self.find(instance_id):
            return found
        if base.format not in _FORMATS:
            raise DiskError(what="Making the disk", reason=f"image format {base.format} is not one of {_FORMATS}")
        size_bytes = size_gib * _GIB or base.virtual_size_bytes
        if size_bytes < base.virtual_size_bytes:
            needed_gib = -(-base.virtual_size_bytes // _GIB)
            reason = f"the image needs {needed_gib} GiB, the disk of this instance type has {size_gib} GiB"
            raise DiskError(what="Making the disk", reason=reason)
        folder = instance_folder(self._instances, instance_id)
        with ExitStack() as undo:
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                undo.callback(self.remove, instance_id)
                link = _link(base.path, folder / _BASE)
                half_made = folder / _HALF_MADE
                qemu_img.create_overlay(half_made, base=link, base_format=base.format, size_bytes=size_bytes)
                half_made.rename(folder / _DISK)
            except (CommandFailed, OSError) as error:
                raise DiskError(what="Making the disk", reason=str(error)) from error
            undo.pop_all()
        return Disk(folder / _DISK, "qcow2")

    def find(self, instance_id: str) -> Disk | None:
        path = instance_folder(self._instances, instance_id) / _DISK
        return Disk(path, "qcow2") if path.exists() else None

    def remove(self, instance_id: str) -> None:
        folder = instance_folder(self._instances, instance_id)
        # The base last: an overlay without its base would be a broken disk.
        for name in (_DISK, _HALF_MADE, _BASE):
            (folder / name).unlink(missing_ok=True)

    def set_aside(self, instance_id: str, removed_at: datetime) -> None:
        folder = instance_folder(self._instances, instance_id)
        if not (folder / _DISK).exists():
            return
        name = f"{instance_id}@{removed_at.astimezone(UTC):{_STAMP}}"
        _find_base_beside(folder / _DISK)  # first: where it is now, it is beside it as well
        try:
            _move(folder, [kept / name for kept in self._kept])
        except OSError as error:
            raise DiskError(what="Setting the disk aside", reason=str(error)) from error

    def kept(self) -> Sequence[KeptDisk]:
        found = []
        for folder in sorted(f for kept in self._kept if kept.is_dir() for f in kept.iterdir()):
            instance_id, _, stamp = folder.name.partition("@")
            if is_id(instance_id, INSTANCE) and (at := _moment(stamp)) is not None:
                found.append(KeptDisk(instance_id, at.isoformat(), _allocated(folder / _DISK)))
        return found

    def drop_kept(self, disk: KeptDisk) -> None:
        at = datetime.fromisoformat(disk.removed_at)
        for kept in self._kept:
            try:
                shutil.rmtree(kept / f"{disk.instance_id}@{at.astimezone(UTC):{_STAMP}}")
            except FileNotFoundError:
                continue
            except OSError as error:
                raise DiskError(what="Removing a disk that was set aside", reason=str(error)) from error

    def list(self) -> frozenset[str]:
        if not self._instances.is_dir():
            return frozenset()
        return frozenset(f.name for f in self._instances.iterdir() if is_id(f.name, INSTANCE))

    def images_in_use(self) -> frozenset[int]:
        found = set()
        for folder in (self._instances, *self._kept):
            for path in folder.glob(f"*/{_BASE}"):
                try:
                    found.add(path.stat().st_ino)
                except FileNotFoundError:
                    continue  # its guest was destroyed meanwhile
        return frozenset(found)

    def used_bytes(self) -> int:
        return sum(_allocated(self._instances / instance / _DISK) for instance in self.list())


def _kept_folders(instances: Path) -> tuple[Path, Path]:
    """Where disks are set aside: beside those in use, or, where these are in a file system of their own, among them.
    A disk is never copied for that."""
    return instances.with_name("removed-disks"), instances / ".removed-disks"


def _move(folder: Path, targets: Sequence[Path]) -> None:
    """Move it to the first of these that is in its file system.

    Raises:
        OSError
    """
    *others, last = targets
    for target in others:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            folder.rename(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
        else:
            return
    last.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.rename(last)


def _link(image: Path, link: Path) -> Path:
    link.unlink(missing_ok=True)
    try:
        os.link(image, link)
    except FileNotFoundError:
        raise
    except OSError:  # another file system, or as many links as one file may have
        link.symlink_to(image)
    return link


def _find_base_beside(disk: Path) -> None:
    """Have the overlay look for its base beside it, so that it can be read where it is. Should that fail, it can be
    read when it is back in its old place."""
    try:
        qemu_img.set_base(disk, _BASE, qemu_img.backing_format(disk))
    except (CommandFailed, OSError, ValueError, KeyError) as error:
        log.warning("a disk that was set aside keeps its old backing file", disk=str(disk), reason=str(error))


def _moment(stamp: str) -> datetime | None:
    try:
        return datetime.strptime(stamp, _STAMP).replace(tzinfo=UTC)
    except ValueError:
        return None


def _allocated(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0
