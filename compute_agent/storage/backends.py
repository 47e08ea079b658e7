"""The disk backends by the name that a heartbeat gives them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from compute_agent.storage.backend import DiskBackend
from compute_agent.storage.qcow2 import Qcow2Disks

DISK_BACKENDS: Mapping[str, Callable[[Path], DiskBackend]] = MappingProxyType({"qcow2": Qcow2Disks})


def make_disks(name: str, instances: Path) -> DiskBackend:
    """The backend of this name; ``instances`` is the folder of the guests' folders."""
    return DISK_BACKENDS[name](instances)
