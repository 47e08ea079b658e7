"""Has dnsmasq forget leases, in the guests' name: a DHCPRELEASE from this host (RFC 2131, 4.4.4), as dhcp_release(1) of
dnsmasq-utils sends it."""

import socket
import struct
from collections.abc import Iterable

from network.dnsmasq.leases import Taken

_SERVER_PORT = 67
_REQUEST, _ETHERNET, _MAC_BYTES = 1, 1, 6
_COOKIE = b"\x63\x82\x53\x63"
_RELEASE = bytes((53, 1, 7))
_SERVER = bytes((54, 4))
_END = b"\xff"
# RFC 2131, figure 1: fixed part up to the options.
_HEADER = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s")


def release(bridge: str, server: str, taken: Iterable[Taken]) -> None:
    """Send one for each of these leases. There is no answer: the file of leases shows the result.

    Raises:
        OSError: the bridge is gone, or this process may not bind to it.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, bridge.encode())
        for lease in taken:
            sender.sendto(_packet(lease, server), (server, _SERVER_PORT))


def _packet(lease: Taken, server: str) -> bytes:
    address, mac = socket.inet_aton(lease.ip), bytes.fromhex(lease.mac.replace(":", ""))
    unset = bytes(4)
    header = _HEADER.pack(
        _REQUEST, _ETHERNET, _MAC_BYTES, 0, 0, 0, 0, address, unset, unset, unset, mac, b"", b""
    )  # fmt: skip
    return header + _COOKIE + _RELEASE + _SERVER + socket.inet_aton(server) + _END
