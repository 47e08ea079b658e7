"""Differences between the MAC addresses that hosts may carry, as their probes say, and the leases pinned to them."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import select

from controller.db.models import Host, Lease, LeasePin
from controller.operations.cloud import Transaction


class MacFault(StrEnum):
    """Which of the two lacks the MAC address."""

    NOT_ALLOWED = "NOT_ALLOWED"  # a lease is pinned to the host, which may not carry its MAC address
    NO_LEASE = "NO_LEASE"  # the host may carry the MAC address, no lease of it is pinned to the host


@dataclass(frozen=True, order=True)
class MacDisagreement:
    """One MAC address of one host; ``ip`` is its lease's, where it has one."""

    host_id: str
    mac: str
    fault: MacFault
    ip: str = ""

    def __str__(self) -> str:
        if self.fault is MacFault.NOT_ALLOWED:
            return f"{self.mac}: lease {self.ip} is pinned to {self.host_id}, which may not carry it"
        return f"{self.mac}: {self.host_id} may carry it, no lease of it is pinned there"


def mac_disagreements(tx: Transaction, host_id: str | None = None) -> list[MacDisagreement]:
    """The disagreements of one host, or of all, in two statements; hosts without a probe have none."""
    allowed = _allowed(tx, host_id)
    pinned = _pinned(tx, host_id) if allowed else {}
    found = []
    for host, macs in allowed.items():
        leases = pinned.get(host, {})
        found += [MacDisagreement(host, m, MacFault.NOT_ALLOWED, ip) for m, ip in leases.items() if m not in macs]
        found += [MacDisagreement(host, m, MacFault.NO_LEASE) for m in macs if m not in leases]
    return sorted(found)


def _allowed(tx: Transaction, host_id: str | None) -> dict[str, set[str]]:
    query = select(Host.id, Host.allowed_macs).where(Host.allowed_macs.is_not(None))
    if host_id is not None:
        query = query.where(Host.id == host_id)
    return {row.id: set(filter(None, (row.allowed_macs or "").split(","))) for row in tx.session.execute(query)}


def _pinned(tx: Transaction, host_id: str | None) -> Mapping[str, Mapping[str, str]]:
    """IP by MAC address by host."""
    query = select(LeasePin.host_id, Lease.mac, Lease.ip).join(Lease, Lease.id == LeasePin.lease_id)
    if host_id is not None:
        query = query.where(LeasePin.host_id == host_id)
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for host, mac, ip in tx.session.execute(query):
        found[host][mac.lower()] = ip
    return found
