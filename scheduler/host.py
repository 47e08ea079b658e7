"""What placement is told: rows of hosts, and what is asked for."""

from dataclasses import dataclass
from typing import NamedTuple


class Host(NamedTuple):
    """A host as its row is at one moment; ``*_free`` is what may still be promised, overcommit counted in.

    ``labels`` and ``images`` (checksums) are comma-separated. ``guest_overhead_mib`` is what each guest takes of its
    memory beside the guest's own.
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


@dataclass(frozen=True, slots=True)
class Request:
    """``count`` instances, all alike. ``hypervisor`` and ``zone`` empty: any.

    ``labels`` are those that a host must have, ``image`` is a checksum. ``group_strategy`` is that of the placement
    group (``controller.db.models.GroupStrategy``) or empty; ``group_hosts`` carry members of it already.
    """

    count: int
    vcpus: int
    memory_mib: int
    disk_gib: int
    architecture: str = "x86_64"
    hypervisor: str = ""
    zone: str = ""
    labels: tuple[str, ...] = ()
    image: str = ""
    group_strategy: str = ""
    group_hosts: frozenset[str] = frozenset()

    @property
    def need(self) -> tuple[int, int, int]:
        """What one instance is given: vCPUs, MiB of memory, GiB of disk; ``HostTable.need``: what a host gives."""
        return self.vcpus, self.memory_mib, self.disk_gib

    @property
    def kind(self) -> tuple[object, ...]:
        """Everything but the count: hosts answer two requests of one kind alike."""
        return (
            self.vcpus,
            self.memory_mib,
            self.disk_gib,
            self.architecture,
            self.hypervisor,
            self.zone,
            self.labels,
            self.image,
            self.group_strategy,
            self.group_hosts,
        )


def listed(text: str | None) -> frozenset[str]:
    """The items of a comma-separated column."""
    return frozenset(item for part in (text or "").split(",") if (item := part.strip()))
