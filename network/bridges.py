"""Bridges with the networks' gateways, and their VLANs on the trunk."""

import hashlib
from collections.abc import Iterable, Mapping

import netaddr

from controller.conf.settings import Settings
from controller.domain.errors import HostError
from controller.domain.names import bridge_prefix, trunk_prefix
from controller.programs import ip
from network.segment import Segment


def gateway_mac(cloud_id: str, vlan: int) -> str:
    """The gateway's address: locally administered, and the same after every restart, for guests remember it.

    Bridges for the same VLAN on other hosts must not have it: they would keep what is for the gateway.
    """
    digest = hashlib.sha256(f"{cloud_id}:{vlan}".encode()).digest()
    octets = [(digest[0] & 0xFC) | 0x02, *digest[1:6]]
    return ":".join(f"{o:02x}" for o in octets)


def is_host_local(settings: Settings) -> bool:
    """Whether networks end at this host: no trunk is named, or the kernel has no 802.1Q."""
    return not settings.network.trunk or not ip.kernel_has_vlans()


def owned(links: Iterable[str], cloud_id: str) -> dict[str, int]:
    """This cloud's bridges and VLAN sub-interfaces among these names, with their VLAN id."""
    found = {}
    for name in links:
        for prefix in (bridge_prefix(cloud_id), trunk_prefix(cloud_id)):
            digits = name.removeprefix(prefix)
            if digits != name and digits.isdecimal():
                found[name] = int(digits)
    return found


def ensure(segment: Segment, settings: Settings, links: Mapping[str, ip.Link]) -> None:
    """Make the segment's bridge; costs nothing when ``links`` shows that it is there.

    The agent on this machine may make the same bridge at the same moment.

    Raises:
        HostError: the kernel refused, or the range is in use on this host already.
    """
    mac = gateway_mac(settings.general.cloud_id, segment.vlan)
    address = f"{segment.gateway}/{segment.prefix_length}"
    link = links.get(segment.bridge)
    if link is None or address not in link.addresses:
        _refuse_overlap(segment, [i for n, i in links.items() if n not in owned([n], settings.general.cloud_id)])
    if link is None:
        ip.add_bridge(segment.bridge)
    if link is None or not (link.up and link.plain and link.mac == mac and link.addresses == {address}):
        _set_sysctls(segment.bridge)
        stale = sorted(link.addresses - {address}) if link else []
        ip.configure_bridge(segment.bridge, mac=mac, address=address, stale=stale)
    if not is_host_local(settings):
        _ensure_trunk(segment, settings.network.trunk, links)


def _refuse_overlap(segment: Segment, others: Iterable[ip.Link]) -> None:
    """A gateway's route would lead this host's own traffic to the guests, at worst that to its own gateway."""
    wanted = netaddr.IPNetwork(segment.cidr)
    for link in others:
        for address in sorted(link.addresses):
            other = netaddr.IPNetwork(address)
            if wanted.version == other.version and wanted.first <= other.last and other.first <= wanted.last:
                reason = f"{segment.cidr} overlaps {address} of {link.name}, so the network needs another range"
                raise HostError(what="Making the bridge", reason=reason)


def _ensure_trunk(segment: Segment, trunk: str, links: Mapping[str, ip.Link]) -> None:
    link = links.get(segment.trunk)
    if link is None:
        ip.add_vlan(segment.trunk, trunk, segment.vlan)
    if link is None or not link.up or link.master != segment.bridge:
        _set_sysctls(segment.trunk)
        ip.set_up(segment.trunk, bridge=segment.bridge)


def _set_sysctls(name: str) -> None:
    ip.disable_ipv6(name)
    ip.set_sysctl(f"ipv4/conf/{name}/arp_ignore", "1")
