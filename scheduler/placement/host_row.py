"""A host as placement reads it."""

from operator import itemgetter
from typing import NamedTuple

from controller.domain.host_facts import CAPACITIES


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


# The field of what is free of each capacity; its limit has the name of the host's column.
FREE_FIELDS = {c.name: c.limit.replace("_limit", "_free") for c in CAPACITIES}
limits_of = itemgetter(*(HostRow._fields.index(c.limit) for c in CAPACITIES))
free_of = itemgetter(*(HostRow._fields.index(FREE_FIELDS[c.name]) for c in CAPACITIES))
_LOAD = {*(c.limit for c in CAPACITIES), *FREE_FIELDS.values()}
# What a host is, whatever it carries.
description_of = itemgetter(*(n for n, name in enumerate(HostRow._fields) if name != "id" and name not in _LOAD))


def listed(text: str | None) -> frozenset[str]:
    """The items of a comma-separated column."""
    return frozenset(item for part in (text or "").split(",") if (item := part.strip()))
