"""ICMP echo to many addresses from one socket (RFC 792)."""

import os
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from types import TracebackType
from typing import Self

_REQUEST, _REPLY = 8, 0
_HEADER = struct.Struct("!BBHHH")


class Pinger:
    """Asks whom it is told to and remembers who has answered; a context manager; root only."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self._socket.setblocking(False)
        self._identifier = os.getpid() & 0xFFFF

    def ask(self, addresses: Iterable[str]) -> None:
        """One echo request to each; one that cannot be sent now is asked again next time."""
        for address in addresses:
            packet = _HEADER.pack(_REQUEST, 0, 0, self._identifier, 1)
            packet = _HEADER.pack(_REQUEST, 0, _checksum(packet), self._identifier, 1)
            with suppress(OSError):
                self._socket.sendto(packet, (address, 0))

    def answers(self) -> set[str]:
        """Who has answered since the last call."""
        found: set[str] = set()
        while True:
            try:
                packet, (address, _) = self._socket.recvfrom(2048)
            except BlockingIOError:
                return found
            kind, _, _, identifier, _ = _HEADER.unpack_from(packet, (packet[0] & 15) * 4)
            if (kind, identifier) == (_REPLY, self._identifier):
                found.add(address)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()


def _checksum(packet: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(packet) // 2}H", packet))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF
