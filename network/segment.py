"""A network as this host carries it: bridge, VLAN, gateway; and the addresses given out in it."""

from collections.abc import Iterable
from dataclasses import dataclass

import netaddr

from controller.domain.names import bridge_name, lease_hostname, trunk_name
from controller.operations.networks.leases import gateway


@dataclass(frozen=True)
class Segment:
    """One network on this host."""

    network_id: str
    vlan: int
    cidr: str
    bridge: str
    trunk: str
    gateway: str
    prefix_length: int

    @classmethod
    def of(cls, cloud_id: str, network_id: str, vlan: int, cidr: str) -> "Segment":
        """What follows from a network's row."""
        return cls(
            network_id=network_id,
            vlan=vlan,
            cidr=cidr,
            bridge=bridge_name(cloud_id, vlan),
            trunk=trunk_name(cloud_id, vlan),
            gateway=gateway(cidr),
            prefix_length=netaddr.IPNetwork(cidr).prefixlen,
        )


@dataclass(frozen=True, slots=True)
class HeldLease:
    """An address that an instance holds; ``dns_name`` is empty where the name is made of the address. ``ran``: its
    guest has run, so it may have asked for the address. ``lease_id`` is the number of its row."""

    ip: str
    mac: str
    instance_id: str
    dns_name: str = ""
    ran: bool = False
    lease_id: int = 0

    @property
    def hostname(self) -> str:
        """What the holder is called in its network."""
        return lease_hostname(self.dns_name, self.ip)

    def is_served_like(self, other: "HeldLease") -> bool:
        """Whether DHCP and DNS have the same lines for both."""
        mine = self.ip, self.mac, self.instance_id, self.dns_name
        return mine == (other.ip, other.mac, other.instance_id, other.dns_name)


# What the database can multiply without an overflow, however many rows are added up.
MARK_MODULUS = 65521


@dataclass(frozen=True, slots=True)
class LeaseMark:
    """Which leases of a network are held, in three numbers that the database makes of its rows.

    Leases that are added or given back change it; another holder does not. Two sets of leases with one mark are equal
    but for an unlikely chance, which a whole reading puts right (``dnsmasq.server.WHOLE_EVERY_S``).
    """

    count: int = 0
    ids: int = 0
    squares: int = 0

    @classmethod
    def of(cls, lease_ids: Iterable[int]) -> "LeaseMark":
        """The mark of these leases."""
        ids = list(lease_ids)
        return cls(len(ids), sum(ids), sum((i % MARK_MODULUS) ** 2 for i in ids))

    def __add__(self, other: "LeaseMark") -> "LeaseMark":
        return LeaseMark(self.count + other.count, self.ids + other.ids, self.squares + other.squares)
