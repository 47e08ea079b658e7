"""A host as placement reads it."""

from typing import NamedTuple


class HostRow(NamedTuple):
    """A host's row at one moment; ``*_free`` is what may still be claimed, overcommit included.

    ``labels`` and ``images`` (checksums) are comma-separated. ``guest_overhead_mib`` is the memory that each
    guest takes beside its own.
    """

    id: str
    up: bool
    mode: str
    hypervisor: str
    architecture: str
    zone: str
    vcpus_limit: int
    vcpus_free: int
    memory_limit_mib: int
    memory_free_mib: int
    disk_limit_gib: int
    disk_free_gib: int
    labels: str | None = ""
    images: str | None = ""
    guest_overhead_mib: int = 0


def listed(text: str | None) -> frozenset[str]:
    """The items of a comma-separated column."""
    return frozenset(item for part in (text or "").split(",") if (item := part.strip()))
