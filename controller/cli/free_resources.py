"""Finds what is free on this machine: a TCP port, an address range."""

import socket
from collections.abc import Iterable

import netaddr

from controller.domain.errors import CommandFailed, ConfigurationError
from controller.programs.ip import read_routes

_PORTS_TRIED = 200
# Private ranges (RFC 1918, and RFC 6598 as the last resort), the largest and least used first.
RANGES = (
    "10.128.0.0/10",
    "10.64.0.0/10",
    "10.192.0.0/10",
    "172.16.0.0/12",
    "10.0.0.0/10",
    "192.168.0.0/16",
    "100.64.0.0/10",
)


def free_port(first: int, host: str = "127.0.0.1", avoid: Iterable[int] = ()) -> int:
    """The first port from ``first`` on that no process listens on. Raises ConfigurationError."""
    for port in range(first, min(first + _PORTS_TRIED, 65536)):
        if port not in set(avoid) and port_is_free(port, host):
            return port
    raise ConfigurationError(reason=f"no port is free on {host} from {first} on: name one with --port")


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen there now."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_range(used: Iterable[netaddr.IPNetwork]) -> str:
    """A range for projects' networks that overlaps none of these.

    Raises:
        ConfigurationError: all private ranges are in use in some part.
    """
    taken = list(used)
    for candidate in RANGES:
        network = netaddr.IPNetwork(candidate)
        if not any(network.first <= t.last and t.first <= network.last for t in taken):
            return candidate
    raise ConfigurationError(
        reason="every private range overlaps a route of this machine: name one that is free, as "
        "`pileus init --cidr-pool RANGE` or [network] project_cidr_pool"
    )


def routes() -> list[netaddr.IPNetwork]:
    """What this machine has routes to, but for the default route; empty if the routes cannot be read."""
    try:
        found = read_routes()
    except CommandFailed:
        return []
    destinations = [r["dst"] for r in found if r.get("dst", "default") != "default" and r.get("type") != "broadcast"]
    return [netaddr.IPNetwork(d) for d in destinations]
