"""Where the disks of guests are kept."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from controller.domain.ids import INSTANCE, is_id
from controller.domain.messages import KeptDisk


@dataclass(frozen=True)
class BaseImage:
    """A verified image file on this host that a disk starts as; ``format`` is qcow2 or raw."""

    path: Path
    format: str
    virtual_size_bytes: int


@dataclass(frozen=True)
class Disk:
    """A guest's disk: ``format`` is the one to name to QEMU, ``block`` whether the path is a block device."""

    path: Path
    format: str
    block: bool = False


class DiskBackend(ABC):
    """Makes a writable disk for each guest out of a base image that is never written to.

    Every method is idempotent; a disk that ``find`` finds is whole.
    """

    @abstractmethod
    def create(self, instance_id: str, base: BaseImage, size_gib: int) -> Disk:
        """The guest's disk, made unless it is there; with ``size_gib`` 0 as large as its image.

        The disk stays usable when ``base`` is removed from where it is now.

        Raises:
            DiskError: smaller than the image, no room; nothing is left of the attempt.
        """

    @abstractmethod
    def find(self, instance_id: str) -> Disk | None:
        """The guest's disk; None when there is none."""

    @abstractmethod
    def remove(self, instance_id: str) -> None:
        """Remove the guest's disk; absent is fine."""

    @abstractmethod
    def set_aside(self, instance_id: str, removed_at: datetime) -> None:
        """Keep the guest's disk elsewhere, dated so; without a disk there is nothing to do.

        What was set aside can be given back to a guest of the same id, and be read by itself.
        """

    @abstractmethod
    def kept(self) -> Sequence[KeptDisk]:
        """The disks that were set aside."""

    @abstractmethod
    def drop_kept(self, disk: KeptDisk) -> None:
        """Remove a disk that was set aside; absent is fine."""

    @abstractmethod
    def list(self) -> frozenset[str]:
        """The instances that have a disk, or what is left of one."""

    @abstractmethod
    def images_in_use(self) -> frozenset[int]:
        """The inodes of the images that the disks need, those that were set aside included."""

    @abstractmethod
    def used_bytes(self) -> int:
        """What the disks take on this host right now."""


def instance_folder(instances: Path, instance_id: str) -> Path:
    """The folder of one guest's files; an id that is none never becomes a path."""
    if not is_id(instance_id, INSTANCE):
        raise ValueError(f"not an instance id: {instance_id!r}")
    return instances / instance_id
