"""What can be wrong with the rows of a lease file: each by itself, one with another, and with what is there."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network

from controller.domain.ids import INSTANCE, is_id
from controller.domain.lease_file import LeaseRow
from controller.domain.names import instance_hostname, is_dns_label
from controller.operations.networks.leases import FIRST_OFFSET, GATEWAY_OFFSET, end_offset

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", re.ASCII)
# What dnsmasq takes for something else than a name in its file of hosts, and what no machine may be called.
_NO_NAME = re.compile(r"\d+[smhdw]?|ignore|infinite|deprecated|localhost", re.ASCII)
_ADDRESS_NAME = re.compile(r"ip(-\d{1,3}){4}", re.ASCII)
_SHOWN_HOSTS = 5

# Reasons by line; a line that is not here is good.
Faults = dict[int, list[str]]


@dataclass(frozen=True, slots=True)
class ExistingLease:
    """A lease of the network as it is now; ``host_id`` is where its instance is."""

    id: int
    ip: str
    mac: str
    name: str
    instance_id: str | None
    host_id: str | None
    hosts: frozenset[str]


@dataclass(frozen=True)
class Surroundings:
    """What the rows have to agree with. ``leases`` are the network's by IP, ``macs`` those of other networks with the
    network's name; ``pooled`` has name and CIDR of the networks that make MAC addresses, by number."""

    cidr: str
    leases: Mapping[str, ExistingLease]
    hosts: Set[str]
    macs: Mapping[str, str]
    pooled: Mapping[int, tuple[str, str]]


def normal_row(row: LeaseRow) -> LeaseRow:
    """The same lease in the one spelling that is kept: small letters, colons, hosts in order and each once."""
    mac = row.mac.lower().replace("-", ":")
    return LeaseRow(row.line, row.ip, mac, row.name.lower(), tuple(sorted(set(row.hosts))))


def check_rows(rows: Iterable[LeaseRow], around: Surroundings, *, prune: bool) -> Faults:
    """Everything that is wrong with these normal rows, by line."""
    faults: Faults = defaultdict(list)
    known = list(rows)
    network = IPv4Network(around.cidr)
    for row in known:
        reasons = [_ip_fault(row.ip, network), _mac_fault(row.mac, around), _name_fault(row)]
        reasons += [_hosts_fault(row.hosts, around.hosts), _use_fault(row, around.leases.get(row.ip))]
        _add(faults, row, *reasons)
    _check_doubled(known, faults)
    _check_others(known, around, prune, faults)
    return faults


def shown(text: str) -> str:
    """A text of the file's in a message: short, and nothing but printable ASCII."""
    return ascii(text if len(text) <= 60 else f"{text[:60]}...").strip("'\"")


def _add(faults: Faults, row: LeaseRow, *reasons: str) -> None:
    given = [r for r in reasons if r]
    if given:
        faults[row.line] += given


def _ip_fault(ip: str, network: IPv4Network) -> str:
    try:
        address = IPv4Address(ip)
    except AddressValueError:
        return f"{shown(ip) or 'nothing'} is no IPv4 address"
    if address not in network:
        return f"{ip} lies outside {network}"
    offset = int(address) - int(network.network_address)
    if offset == GATEWAY_OFFSET:
        return f"{ip} is the gateway of {network}"
    if not FIRST_OFFSET <= offset < end_offset(str(network)):
        return f"{ip} is the {'broadcast' if offset else 'network'} address of {network}"
    return ""


def _mac_fault(mac: str, around: Surroundings) -> str:
    if not _MAC.fullmatch(mac):
        return f"{shown(mac) or 'nothing'} is no MAC address such as 52:54:00:12:34:56"
    if mac == "00:00:00:00:00:00":
        return "a MAC address cannot be zero"
    if int(mac[:2], 16) & 1:
        return f"{mac} is the address of a group, no machine's"
    owner = around.macs.get(mac) or _maker(mac, around.pooled)
    return f"{mac} belongs to network '{owner}'" if owner else ""


def _maker(mac: str, pooled: Mapping[int, tuple[str, str]]) -> str:
    """The pooled network that gives this MAC address to one of its guests, sooner or later."""
    if not mac.startswith("52:54:"):
        return ""
    name, cidr = pooled.get(int(mac[6:11].replace(":", ""), 16), ("", ""))
    return name if name and int(mac[12:].replace(":", ""), 16) < end_offset(cidr) else ""


def _name_fault(row: LeaseRow) -> str:
    name = row.name
    if not name:
        return ""
    if not is_dns_label(name):
        return f"{shown(name)} is no host name: 1 to 63 letters, digits and hyphens, no domain"
    if _NO_NAME.fullmatch(name) or is_id(name, INSTANCE):
        return f"no machine can be called {name}"
    if _ADDRESS_NAME.fullmatch(name) and name != instance_hostname(row.ip):
        return f"{name} is the name of another address"
    return ""


def _hosts_fault(hosts: Sequence[str], known: Set[str]) -> str:
    if not hosts:
        return "it names no host"
    unknown = [h for h in hosts if h not in known]
    if not unknown:
        return ""
    more = f" and {len(unknown) - _SHOWN_HOSTS} more" if len(unknown) > _SHOWN_HOSTS else ""
    names = ", ".join(shown(h) or "''" for h in unknown[:_SHOWN_HOSTS])
    return f"there is no host {names}{more}"


def _use_fault(row: LeaseRow, lease: ExistingLease | None) -> str:
    if lease is None or lease.instance_id is None:
        return ""
    if row.mac != lease.mac:
        return f"{lease.ip} is in use by {lease.instance_id}, so its MAC address {lease.mac} cannot change"
    if lease.host_id is not None and lease.host_id not in row.hosts:
        return f"{lease.ip} is in use by {lease.instance_id} on {lease.host_id}, which has to stay among its hosts"
    return ""


def _check_doubled(rows: Sequence[LeaseRow], faults: Faults) -> None:
    for what, values in (
        ("IP", [r.ip for r in rows]),
        ("MAC", [r.mac for r in rows]),
        ("name", [r.name for r in rows]),
    ):
        first: dict[str, int] = {}
        for row, value in zip(rows, values, strict=True):
            if value and first.setdefault(value, row.line) != row.line:
                _add(faults, row, f"{what} {shown(value)} is in line {first[value]} too")


def _check_others(rows: Sequence[LeaseRow], around: Surroundings, prune: bool, faults: Faults) -> None:
    """The leases that the file does not name: they stay, with MAC and name, or are to go."""
    named = {r.ip for r in rows}
    others = [lease for ip, lease in around.leases.items() if ip not in named]
    if prune:
        used = [lease for lease in others if lease.instance_id]
        faults[0] += [f"{lease.ip} is in use by {lease.instance_id} and cannot be removed" for lease in used]
        others = used
    macs = {lease.mac: lease.ip for lease in others}
    names = {lease.name: lease.ip for lease in others if lease.name}
    for row in rows:
        for what, owner in (("MAC " + row.mac, macs.get(row.mac)), ("name " + row.name, names.get(row.name))):
            if owner:
                _add(faults, row, f"{what} belongs to {owner}, which the file does not name")
    if not faults[0]:
        del faults[0]
