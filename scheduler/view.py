"""What one scheduler remembers of the site between two doorbells: the fleet, and the free pinned leases.

It may be out of date; the claim, in the database, decides. What is older than a moment is read anew, and so is what
does not suffice, before anybody is refused.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import select

from controller.db import models
from controller.db.models import Lease, LeasePin
from controller.operations.cloud import Transaction
from controller.operations.leases import is_free
from scheduler.fleet import Fleet
from scheduler.host import Host
from scheduler.pins import PinnedLeases

_LEASES_VALID_S = 2.0
_HOSTS_VALID_S = 0.25


@dataclass(frozen=True)
class _Known:
    leases: PinnedLeases
    read_at: float
    hosts: int


class SiteView:
    """One thread's view of the site; ``monotonic`` tells how old what it remembers is, in seconds."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.fleet = Fleet()
        self._monotonic = monotonic
        self._hosts_read_at = -math.inf
        self._read_in: Transaction | None = None
        self._leases: dict[str, _Known] = {}

    def refresh(self, tx: Transaction, *, fresh: bool = False) -> bool:
        """Make the fleet equal to the rows, as they are or, unless ``fresh``, were a moment ago.

        True when they were read now, False when what is known need not be read again.
        """
        now = self._monotonic()
        if self._read_in is tx or (not fresh and now - self._hosts_read_at < _HOSTS_VALID_S):
            return False
        rows = _hosts(tx)
        self.fleet.refresh(rows)
        there = {row.id for row in rows}
        self.fleet.remove([h for h, i in self.fleet.index.items() if h not in there and self.fleet.known[i]])
        self._hosts_read_at, self._read_in = now, tx
        return True

    def leases(self, tx: Transaction, network_id: str, *, fresh: bool = False) -> PinnedLeases:
        """The free leases of a pinned network; ``fresh`` reads them in any case."""
        known = self._leases.get(network_id)
        now = self._monotonic()
        stale = known is None or known.hosts != len(self.fleet) or now - known.read_at > _LEASES_VALID_S
        if known is None or stale or fresh:
            known = _Known(PinnedLeases(self.fleet, _pins(tx, network_id)), now, len(self.fleet))
            self._leases[network_id] = known
        return known.leases

    def forget(self) -> None:
        """What was counted as taken may not have been: a transaction failed."""
        self._hosts_read_at, self._read_in = -math.inf, None
        self._leases.clear()


def _hosts(tx: Transaction) -> list[Host]:
    h = models.Host
    rows = tx.session.execute(
        select(
            h.id,
            h.up,
            h.mode,
            h.hypervisor,
            h.architecture,
            h.zone,
            h.vcpus_limit,
            h.vcpus_limit - h.vcpus_used,
            h.memory_limit_mib,
            h.memory_limit_mib - h.memory_used_mib,
            h.disk_limit_gib,
            h.disk_limit_gib - h.disk_used_gib,
            h.labels,
            h.images,
            h.guest_overhead_mib,
        ).order_by(h.id)
    )
    return [Host._make(row) for row in rows]


def _pins(tx: Transaction, network_id: str) -> Sequence[tuple[int, str]]:
    query = (
        select(LeasePin.lease_id, LeasePin.host_id)
        .join(Lease, Lease.id == LeasePin.lease_id)
        .where(Lease.network_id == network_id, is_free(tx.now))
    )
    return [(lease_id, host_id) for lease_id, host_id in tx.session.execute(query)]
