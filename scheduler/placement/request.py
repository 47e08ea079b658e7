"""A request for placement."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Request:
    """``count`` instances, all alike. ``hypervisor`` and ``zone`` empty: any.

    ``labels`` are those that a host must have, ``image`` is a checksum. ``group_strategy`` is that of the placement
    group (``GroupStrategy``) or empty; ``group_hosts`` carry members of it already.
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
        """What one instance gets of each of ``CAPACITIES``: vCPUs, MiB of memory, GiB of disk. ``Hosts.need`` adds the
        host's overhead."""
        return self.vcpus, self.memory_mib, self.disk_gib

    @property
    def kind(self) -> tuple[object, ...]:
        """Everything but the count: filters and weighers give two requests of one kind the same answer."""
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
