"""Bridges with the networks' gateways, and their VLANs on the trunk, by ip(8)."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import netaddr

from controller.conf.settings import Settings
from controller.domain.errors import CommandFailed, HostError
from controller.domain.names import bridge_prefix, trunk_prefix
from controller.programs import run
from network.segment import Segment

_BRIDGE_OPTIONS = "stp_state 0 forward_delay 0 mcast_snooping 0"
_SYSCTLS = {"ipv6/conf/{}/disable_ipv6": "1", "ipv4/conf/{}/arp_ignore": "1"}


@dataclass(frozen=True)
class Link:
    """An interface as the kernel has it; ``addresses`` with their prefix length."""

    name: str
    kind: str
    up: bool
    mac: str
    master: str
    addresses: frozenset[str]
    plain: bool  # a bridge that neither delays nor filters


def read_links() -> dict[str, Link]:
    """All interfaces of this host by name: one program, however many there are."""
    return {d["ifname"]: _link(d) for d in json.loads(run(["ip", "-j", "-d", "address", "show"])) if d}


def gateway_mac(cloud_id: str, vlan: int) -> str:
    """The gateway's address: locally administered, and the same after every restart, for guests remember it.

    Bridges for the same VLAN on other hosts must not have it: they would keep what is for the gateway.
    """
    digest = hashlib.sha256(f"{cloud_id}:{vlan}".encode()).digest()
    octets = [(digest[0] & 0xFC) | 0x02, *digest[1:6]]
    return ":".join(f"{o:02x}" for o in octets)


def is_host_local(settings: Settings) -> bool:
    """Whether networks end at this host: no trunk is named, or the kernel has no 802.1Q."""
    return not settings.network.trunk or not _kernel_has_vlans()


def owned(links: Iterable[str], cloud_id: str) -> dict[str, int]:
    """This cloud's bridges and VLAN sub-interfaces among these names, with their VLAN id."""
    found = {}
    for name in links:
        for prefix in (bridge_prefix(cloud_id), trunk_prefix(cloud_id)):
            digits = name.removeprefix(prefix)
            if digits != name and digits.isdecimal():
                found[name] = int(digits)
    return found


def ensure(segment: Segment, settings: Settings, links: Mapping[str, Link]) -> None:
    """Make the segment's bridge; costs no program when ``links`` shows that it is there.

    The agent on this machine may make the same bridge at the same moment.

    Raises:
        HostError: ip(8) refused, or the range is in use on this host already.
    """
    mac = gateway_mac(settings.general.cloud_id, segment.vlan)
    address = f"{segment.gateway}/{segment.prefix_length}"
    link = links.get(segment.bridge)
    if link is None or address not in link.addresses:
        _refuse_overlap(segment, [i for n, i in links.items() if n not in owned([n], settings.general.cloud_id)])
    if link is None:
        _add(f"link add name {segment.bridge} type bridge")
    if link is None or not (link.up and link.plain and link.mac == mac and link.addresses == {address}):
        _set_sysctls(segment.bridge)
        stale = sorted(link.addresses - {address}) if link else []
        _batch(
            f"link set dev {segment.bridge} address {mac}",
            f"link set dev {segment.bridge} type bridge {_BRIDGE_OPTIONS}",
            # The new one first: of a network that grows, the gateway's address is never gone.
            f"address replace {address} broadcast + dev {segment.bridge}",
            *(f"address delete {a} dev {segment.bridge}" for a in stale),
            f"link set dev {segment.bridge} up",
        )
    if not is_host_local(settings):
        _ensure_trunk(segment, settings.network.trunk, links)


def _refuse_overlap(segment: Segment, others: Iterable[Link]) -> None:
    """A gateway's route would lead this host's own traffic to the guests, at worst that to its own gateway."""
    wanted = netaddr.IPNetwork(segment.cidr)
    for link in others:
        for address in sorted(link.addresses):
            other = netaddr.IPNetwork(address)
            if wanted.version == other.version and wanted.first <= other.last and other.first <= wanted.last:
                reason = f"{segment.cidr} overlaps {address} of {link.name}, so the network needs another range"
                raise HostError(what="Making the bridge", reason=reason)


def remove(name: str) -> None:
    """Remove an interface; one that is gone is fine."""
    try:
        run(["ip", "link", "delete", "dev", name])
    except CommandFailed as error:
        if "Cannot find device" not in str(error):
            raise


def _ensure_trunk(segment: Segment, trunk: str, links: Mapping[str, Link]) -> None:
    link = links.get(segment.trunk)
    if link is None:
        _add(f"link add link {trunk} name {segment.trunk} type vlan id {segment.vlan}")
    if link is None or not link.up or link.master != segment.bridge:
        _set_sysctls(segment.trunk)
        _batch(f"link set dev {segment.trunk} master {segment.bridge}", f"link set dev {segment.trunk} up")


def _add(line: str) -> None:
    try:
        run(["ip", *line.split()])
    except CommandFailed as error:
        if "File exists" not in str(error):
            raise


def _batch(*lines: str) -> None:
    run(["ip", "-batch", "-"], stdin="".join(f"{line}\n" for line in lines))


def _set_sysctls(name: str) -> None:
    for path, value in _SYSCTLS.items():
        file = Path("/proc/sys/net") / path.format(name)
        if file.exists():  # no IPv6 in this kernel, no file
            file.write_text(value)


@lru_cache(maxsize=1)
def _kernel_has_vlans() -> bool:
    known = Path("/proc/net/vlan")
    if not known.exists():
        with suppress(CommandFailed):
            run(["modprobe", "8021q"])
    return known.exists()


def _link(document: Mapping[str, object]) -> Link:
    info = document.get("linkinfo")
    info = info if isinstance(info, dict) else {}
    data = info.get("info_data") or {}
    addresses = document.get("addr_info")
    flags = document.get("flags")
    return Link(
        name=str(document["ifname"]),
        kind=str(info.get("info_kind", "")),
        up=isinstance(flags, list) and "UP" in flags,
        mac=str(document.get("address", "")),
        master=str(document.get("master", "")),
        addresses=frozenset(
            f"{a['local']}/{a['prefixlen']}"
            for a in (addresses if isinstance(addresses, list) else [])
            if a.get("family") == "inet"
        ),
        plain=all(data.get(key) == 0 for key in _BRIDGE_OPTIONS.split()[::2]),
    )
