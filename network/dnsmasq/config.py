"""What dnsmasq reads, as text: options, known MACs, names. Nothing here comes from a user: the names of leases are the
operator's, and were checked when they were imported.

Options: https://thekelleys.org.uk/dnsmasq/docs/dnsmasq-man.html
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import netaddr

from controller.conf.settings import Settings
from controller.domain.errors import ConfigurationError
from controller.domain.names import instance_hostname
from controller.operations.networks.leases import FIRST_OFFSET, end_offset
from network.segment import HeldLease, Segment

_DOMAIN = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)(\.(?!-)[a-z0-9-]{1,63}(?<!-))*", re.IGNORECASE)
_METADATA = "169.254.169.254"
# What is added after ``hosts`` and ``names`` were written.
HOSTS_DIR, NAMES_DIR = "hosts.d", "names.d"


def lease_max(cidr: str) -> int:
    """How many leases dnsmasq may hold at once: one for each address that a guest can have."""
    return end_offset(cidr) - FIRST_OFFSET


def options(segment: Segment, settings: Settings, folder: Path, user: str) -> str:
    """The configuration file of one network; ``folder`` holds its other files.

    Raises:
        ConfigurationError: the domain or a name server of the settings is none.
    """
    domain, servers = _domain(settings), _servers(settings.network.dns_servers)
    network = netaddr.IPNetwork(segment.cidr)
    lines = [
        f"interface={segment.bridge}",
        "except-interface=lo",
        "bind-dynamic",
        f"user={user}",
        f"pid-file={folder / 'pid'}",
        f"log-facility={folder / 'log'}",
        "quiet-dhcp",
        # DHCP: only whom we know, each his own address.
        f"dhcp-range={network.network},static,{network.netmask},{settings.network.lease_s}",
        f"dhcp-lease-max={lease_max(segment.cidr)}",
        f"dhcp-hostsfile={folder / 'hosts'}",
        f"dhcp-hostsdir={folder / HOSTS_DIR}",
        f"dhcp-leasefile={folder / 'leases'}",
        "dhcp-ignore=tag:!known",
        "dhcp-ignore-clid",
        "dhcp-authoritative",
        "no-ping",
        f"dhcp-option=option:router,{segment.gateway}",
        f"dhcp-option=option:dns-server,{segment.gateway}",
        # Some systems take 169.254.0.0/16 for a neighbour; a client that asks for routes ignores the router (RFC 3442).
        f"dhcp-option=option:classless-static-route,{_METADATA}/32,{segment.gateway},0.0.0.0/0,{segment.gateway}",
        # DNS
        "no-hosts",
        f"addn-hosts={folder / 'names'}",
        f"hostsdir={folder / NAMES_DIR}",
        f"domain={domain}",
        f"local=/{domain}/",
        "domain-needed",
        "bogus-priv",
        "cache-size=1000",
        *(["no-resolv"] if servers else []),
        *(f"server={s}" for s in servers),
    ]
    return "\n".join(lines) + "\n"


def known_hosts(leases: Iterable[HeldLease], lease_s: int) -> str:
    """The file of known MACs; sorted, so that the same rows give the same text."""
    return "".join(f"{lease.mac},{lease.ip},{lease.hostname},{lease_s}\n" for lease in _sorted(leases))


def names(leases: Iterable[HeldLease], domain: str) -> str:
    """The file of names: each address under its lease's name, its own and its instance's id; the first one is the name
    that the address is resolved to."""
    lines = []
    for lease in _sorted(leases):
        aliases = dict.fromkeys((lease.hostname, instance_hostname(lease.ip), lease.instance_id))
        lines.append(" ".join([lease.ip, *(name for alias in aliases for name in (f"{alias}.{domain}", alias))]))
    return "".join(f"{line}\n" for line in lines)


def _sorted(leases: Iterable[HeldLease]) -> Sequence[HeldLease]:
    return sorted(leases, key=lambda lease: lease.mac)


def _domain(settings: Settings) -> str:
    domain = settings.network.dns_domain
    if not _DOMAIN.fullmatch(domain) or len(domain) > 200:
        raise ConfigurationError(reason=f"[network] dns_domain {domain!r} is not a domain name")
    return domain


def _servers(servers: Sequence[str]) -> list[str]:
    try:
        return [str(netaddr.IPAddress(s)) for s in servers]
    except (netaddr.AddrFormatError, ValueError) as error:
        raise ConfigurationError(reason=f"[network] dns_servers: {error}") from error
