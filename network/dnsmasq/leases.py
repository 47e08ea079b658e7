"""dnsmasq's file of the leases that guests have taken: read, checked, and written again from the rows.

dnsmasq keeps it open, writes all of it in place with each change, and reads it only when it starts: what happened to
the file meanwhile is mended by a start. A line is ``EXPIRY MAC IP NAME CLIENT-ID``, the expiry in seconds since 1970.
"""

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from controller.domain.errors import HostError
from network.segment import HeldLease

_WHAT = "Reading the leases that DHCP has given"
_LINE = re.compile(r"(\d{1,12}) ([0-9a-f]{2}(?::[0-9a-f]{2}){5}) (\d{1,3}(?:\.\d{1,3}){3}) (\S+) \S+", re.ASCII)
# How long dnsmasq may be in the middle of writing it.
_SETTLE_S = 1.0
_LOOK_S = 0.05


class LeaseFileDamaged(HostError):
    """The file is not there, or is not one that dnsmasq wrote."""

    code = "host.lease_file"


@dataclass(frozen=True, slots=True)
class Taken:
    """A lease that dnsmasq remembers; ``expires_at`` in seconds since 1970."""

    expires_at: int
    mac: str
    ip: str
    hostname: str


def read(path: Path) -> dict[str, Taken]:
    """What dnsmasq remembers, by IP.

    Raises:
        LeaseFileDamaged: and it stays so for longer than dnsmasq needs to write it.
    """
    deadline = time.monotonic() + _SETTLE_S
    while True:
        try:
            return parse(path.read_bytes())
        except (OSError, LeaseFileDamaged) as error:
            if time.monotonic() >= deadline:
                raise LeaseFileDamaged(what=_WHAT, reason=_reason(error)) from error
        time.sleep(_LOOK_S)


def parse(content: bytes) -> dict[str, Taken]:
    """The leases of a file that is whole, by IP. Raises LeaseFileDamaged."""
    found = _whole_lines(content)
    if found is None:
        raise LeaseFileDamaged(what=_WHAT, reason="a line is no lease, or the file ends within one")
    return found


def salvage(path: Path) -> dict[str, Taken]:
    """Whatever can still be read of a file, by IP."""
    try:
        content = path.read_bytes()
    except OSError:
        return {}
    matches = (_LINE.fullmatch(line) for line in content.decode("ascii", "replace").split("\n")[:-1])
    return {m[3]: _taken(m) for m in matches if m}


def rebuilt(known: Mapping[str, Taken], leases: Iterable[HeldLease], lease_s: int, now: float) -> str:
    """The file as it ought to be: of the leases in use, those that dnsmasq knew of, and those of guests that have run,
    which may ask for theirs to be prolonged at any moment. Leases that no instance holds any more are left out."""
    fresh_until = int(now) + lease_s
    lines = []
    for lease in sorted(leases, key=lambda lease: lease.mac):
        before = known.get(lease.ip)
        mine = before is not None and before.mac == lease.mac
        if mine or lease.ran:
            expires_at = before.expires_at if mine and before else fresh_until
            lines.append(f"{expires_at} {lease.mac} {lease.ip} {lease.hostname} *\n")
    return "".join(lines)


def left_over(known: Mapping[str, Taken], leases: Iterable[HeldLease]) -> list[Taken]:
    """What dnsmasq remembers of guests that have no such lease any more."""
    held = {(lease.ip, lease.mac) for lease in leases}
    return [taken for taken in known.values() if (taken.ip, taken.mac) not in held]


def _whole_lines(content: bytes) -> dict[str, Taken] | None:
    lines = content.decode("ascii", "replace").split("\n")
    if lines.pop():
        return None
    found = {}
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None:
            return None
        found[match[3]] = _taken(match)
    return found


def _reason(error: OSError | LeaseFileDamaged) -> str:
    return str(error.fields["reason"]) if isinstance(error, LeaseFileDamaged) else str(error)


def _taken(match: "re.Match[str]") -> Taken:
    return Taken(int(match[1]), match[2], match[3], match[4])
