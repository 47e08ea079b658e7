"""A network as this host carries it: bridge, VLAN, gateway; and the addresses given out in it."""

from dataclasses import dataclass

import netaddr

from controller.domain.names import bridge_name, lease_hostname, trunk_name
from controller.operations.leases import gateway


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


@dataclass(frozen=True)
class HeldLease:
    """An address that an instance holds; ``dns_name`` is empty where the name is made of the address. ``ran``: its
    guest has run, so it may have asked for the address."""

    ip: str
    mac: str
    instance_id: str
    dns_name: str = ""
    ran: bool = False

    @property
    def hostname(self) -> str:
        """What the holder is called in its network."""
        return lease_hostname(self.dns_name, self.ip)
