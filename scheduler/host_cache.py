"""What one scheduler keeps of the site between two doorbells: the host table, and the free pinned leases.

It may be out of date; the claim, in the database, decides. Rows that changed are read once a second. Everything is read
again every 30 s, after a conflict over leases, and before a request is refused.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, select

from controller.db import models
from controller.db.bulk import among
from controller.db.models import Lease, LeasePin
from controller.domain.host_facts import CAPACITIES
from controller.operations.cloud import Transaction
from controller.operations.instances.locking import chunks
from controller.operations.networks.leases import is_free
from scheduler.placement.host_row import FREE_FIELDS, HostRow
from scheduler.placement.host_table import HostTable
from scheduler.placement.pinned_leases import PinnedLeases
from scheduler.placement.place import Placement, commit
from scheduler.placement.ranking import Rankings
from scheduler.placement.request import Request

_CHANGES_VALID_S = 1.0
_ALL_VALID_S = 30.0
# A change dated up to so long before the last read may have been committed after it. Slower commits are found when
# everything is read again.
_OVERLAP = timedelta(seconds=1)
_FREE = {FREE_FIELDS[c.name]: getattr(models.Host, c.limit) - getattr(models.Host, c.used) for c in CAPACITIES}
_COLUMNS = [_FREE[name] if name in _FREE else getattr(models.Host, name) for name in HostRow._fields]


@dataclass
class _CachedLeases:
    """The free leases of a network: all of them as of ``all_at``, those that were given back as of ``read_at``, both by
    the monotonic clock; ``until`` is that moment by the cloud's clock."""

    leases: PinnedLeases
    all_at: float
    read_at: float
    until: datetime
    hosts: int


class HostCache:
    """One thread's cache of the site; ``monotonic`` is the clock for the age of its content, in seconds."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.host_table = HostTable()
        self.rankings = Rankings()
        self._monotonic = monotonic
        self._all_read_at = -math.inf
        self._read_at = -math.inf
        self._until: datetime | None = None
        self._read_in: Transaction | None = None
        self._leases: dict[str, _CachedLeases] = {}
        self._doubtful: set[str] = set()
        self._taken: list[tuple[Placement, Request, PinnedLeases | None]] = []

    def begin(self) -> None:
        """A transaction begins: what the last one took was committed."""
        self._taken.clear()

    def refresh(self, tx: Transaction, *, fresh: bool = False) -> bool:
        """Bring the host table up to date; unless ``fresh``, it may be a second old.

        Returns whether rows were read.
        """
        now = self._monotonic()
        if fresh or now - self._all_read_at >= _ALL_VALID_S or self._until is None:
            if fresh and self._read_in is tx:
                return False
            self._read_all(tx, now)
            return True
        if not self._doubtful and now - self._read_at < _CHANGES_VALID_S:
            return False
        self._read_changes(tx, self._until - _OVERLAP)
        self._read_at, self._until = now, tx.now
        return True

    def leases(self, tx: Transaction, network_id: str, *, fresh: bool = False) -> PinnedLeases:
        """The free leases of a pinned network; ``fresh`` reads all of them again."""
        known = self._leases.get(network_id)
        now = self._monotonic()
        if (
            known is None
            or fresh
            or known.hosts != len(self.host_table)
            or now - known.all_at >= _ALL_VALID_S
            or (now - known.read_at >= _CHANGES_VALID_S and not _give_back(tx, network_id, known))
        ):
            pins = _pins(tx, Lease.network_id == network_id)
            known = _CachedLeases(PinnedLeases(self.host_table, pins), now, now, tx.now, len(self.host_table))
            self._leases[network_id] = known
        elif now - known.read_at >= _CHANGES_VALID_S:
            known.read_at, known.until = now, tx.now
        return known.leases

    def only(self, tx: Transaction, lease_id: int) -> PinnedLeases:
        """This one lease, read now; empty if it is not free."""
        return PinnedLeases(self.host_table, _pins(tx, Lease.id == lease_id))

    def take(self, placement: Placement, request: Request, leases: PinnedLeases | None) -> None:
        """Count a plan as carried out; ``forget`` undoes it."""
        commit(placement, request, self.host_table, leases)
        self._taken.append((placement, request, leases))

    def forget(self, *, leases: bool = False) -> None:
        """The transaction failed: undo what it took, and read its hosts again next time.

        ``leases``: read the leases again, too.
        """
        for placement, request, of in reversed(self._taken):
            for host_id in placement.host_ids:
                self.host_table.give_back(host_id, request)
            if of is not None:
                of.give_back(placement.lease_ids)
            self._doubtful.update(placement.host_ids)
        self._taken.clear()
        self._read_in = None
        if leases:
            self._leases.clear()

    def _read_all(self, tx: Transaction, now: float) -> None:
        rows = _hosts(tx)
        self.host_table.refresh(rows)
        there = {row.id for row in rows}
        self.host_table.remove(
            [h for h, i in self.host_table.index.items() if h not in there and self.host_table.known[i]]
        )
        for placement, request, _ in self._taken:  # of this transaction, which claims its hosts at its end
            self.host_table.take_each(placement.host_ids, request)
        self._all_read_at = self._read_at = now
        self._until, self._read_in = tx.now, tx
        self._doubtful.clear()

    def _read_changes(self, tx: Transaction, since: datetime) -> None:
        changed = models.Host.changed_at >= since
        doubtful, self._doubtful = sorted(self._doubtful), set()
        rows: list[HostRow] = []
        for ids in chunks(doubtful):
            rows += _hosts(tx, among(models.Host.id, ids))
        gone = set(doubtful) - {row.id for row in rows}
        self.host_table.refresh([*rows, *_hosts(tx, changed)])
        self.host_table.remove([h for h in gone if self.host_table.known[self.host_table.index[h]]])


def _hosts(tx: Transaction, *where: ColumnElement[bool]) -> list[HostRow]:
    rows = tx.session.execute(select(*_COLUMNS).where(*where).order_by(models.Host.id))
    return [HostRow._make(row) for row in rows]


def _pins(tx: Transaction, *where: ColumnElement[bool]) -> Sequence[tuple[int, str]]:
    query = (
        select(LeasePin.lease_id, LeasePin.host_id)
        .join(Lease, Lease.id == LeasePin.lease_id)
        .where(is_free(tx.now), *where)
    )
    return [(lease_id, host_id) for lease_id, host_id in tx.session.execute(query)]


def _give_back(tx: Transaction, network_id: str, known: _CachedLeases) -> bool:
    """Mark the leases that were given back since the last read as free; False if there are new ones among them."""
    since = known.until - _OVERLAP
    query = select(Lease.id).where(Lease.network_id == network_id, is_free(tx.now), Lease.released_at >= since)
    return known.leases.give_back(tx.session.scalars(query).all())
