"""The host's side of a network: a bridge for each VLAN, joined to the trunk where there is one.

The gateway's address on a bridge is the network service's business.
"""

import errno
import threading
from collections.abc import Iterable
from pathlib import Path

import structlog

from controller.domain import names
from controller.domain.errors import DriverError
from controller.programs import ip

log = structlog.get_logger(__name__)

_INTERFACES = Path("/sys/class/net")
_IFF_UP = 0x1


class Bridges:
    """The bridges of one cloud on this host; safe to use from many threads and beside the network service."""

    def __init__(self, cloud_id: str, trunk: str) -> None:
        """``trunk`` carries the VLANs between the hosts; empty: every network is local to its host."""
        self._cloud_id = cloud_id
        self._trunk = trunk
        self._lock = threading.Lock()

    def ensure(self, vlan: int) -> str:
        """The name of the VLAN's bridge, which is there and up.

        Raises:
            DriverError: it cannot be made, or the trunk is not there.
        """
        name = names.bridge_name(self._cloud_id, vlan)
        with self._lock:
            try:
                if not _is_up(name):
                    _make_bridge(name)
                if self._trunk:
                    self._join(name, vlan)
            except (ip.InterfaceError, OSError) as error:
                raise DriverError(what=f"Making bridge {name}", reason=str(error)) from error
        return name

    def remove_tap(self, instance_id: str) -> None:
        """Remove what a guest's interfaces left behind; nothing left is fine."""
        first = names.tap_name(self._cloud_id, instance_id)
        for path in _INTERFACES.glob(f"{first[:-1]}*"):
            if path.name == first or not _is_hexadecimal(path.name[-1]):
                _delete(path.name)

    def taps(self) -> frozenset[str]:
        """The names of this cloud's taps."""
        return frozenset(p.name for p in _INTERFACES.glob(f"{names.tap_prefix(self._cloud_id)}*"))

    def remove_unused_taps(self, taps: Iterable[str]) -> None:
        """Remove those of them that are ours and that no process holds open.

        Raises:
            DriverError: one cannot be removed.
        """
        for name in sorted(self.taps().intersection(taps)):
            if not _has_carrier(name):
                _delete(name)

    def remove_all(self) -> None:
        """Remove every tap, VLAN sub-interface and bridge of this cloud."""
        cloud = self._cloud_id
        for prefix in (names.tap_prefix(cloud), names.trunk_prefix(cloud), names.bridge_prefix(cloud)):
            for path in _INTERFACES.glob(f"{prefix}*"):
                _delete(path.name)

    def _join(self, bridge: str, vlan: int) -> None:
        name = names.trunk_name(self._cloud_id, vlan)
        if not (_INTERFACES / self._trunk).exists():
            raise DriverError(what=f"Joining bridge {bridge}", reason=f"there is no trunk {self._trunk}")
        if not (_INTERFACES / name).exists():
            try:
                ip.add_vlan(name, self._trunk, vlan)
            except ip.InterfaceError as error:
                if error.errno != errno.EOPNOTSUPP:
                    raise
                log.warning("no 802.1Q in this kernel: networks are local to this host", trunk=self._trunk)
                self._trunk = ""
                return
        if not (_INTERFACES / name / "master").exists() or not _is_up(name):
            ip.disable_ipv6(name)
            ip.set_up(name, bridge=bridge)


def _make_bridge(name: str) -> None:
    if not (_INTERFACES / name).exists():
        ip.add_bridge(name)  # or the network service did meanwhile
    if not (_INTERFACES / name / "bridge").exists():
        raise DriverError(what=f"Making bridge {name}", reason="an interface of this name is no bridge")
    ip.disable_ipv6(name)  # the host has no address on a guests' network
    ip.set_up(name)


def _is_up(name: str) -> bool:
    try:
        return bool(int((_INTERFACES / name / "flags").read_text(), 16) & _IFF_UP)
    except OSError:  # gone, or going
        return False


def _has_carrier(name: str) -> bool:
    """Of a tap: whether it is up and a process has it open (drivers/net/tun.c)."""
    try:
        return (_INTERFACES / name / "carrier").read_text().strip() == "1"
    except OSError:  # down, or gone
        return False


def _is_hexadecimal(character: str) -> bool:
    return character in "0123456789abcdef"


def _delete(name: str) -> None:
    try:
        ip.delete(name)
    except ip.InterfaceError as error:
        raise DriverError(what=f"Removing interface {name}", reason=str(error)) from error
