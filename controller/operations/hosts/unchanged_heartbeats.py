"""Heartbeats that are the same as the last one, of hosts whose instances have not changed either.

On a site at rest nearly all heartbeats are. They cost a share of three statements, and are not compared with the rows.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from operator import attrgetter
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, String, Update, exists, func, select, update
from sqlalchemy.types import TypeEngine

from controller.db.bulk import among, update_rows
from controller.db.models import Host, Instance, StrayGuest
from controller.domain.messages import HostReported
from controller.domain.states import State
from controller.operations.cloud import Transaction
from controller.operations.hosts.lateness import warn_of_clocks
from controller.operations.instances.locking import chunks

# After so long a heartbeat is compared in full again, in case a change was missed.
_TRUSTED_S = 300.0
# How many instances of a host are in a state, and the sum of their generations, for each state.
Rows = frozenset[tuple[str, int, int]]

_content = attrgetter(*(f.name for f in fields(HostReported) if f.name not in ("at", "sequence")))
_SEEN_ROW: Mapping[str, TypeEngine[Any]] = {"host": String(), "sequence": BigInteger()}


@dataclass(frozen=True)
class _Known:
    """The last heartbeat of a host. ``sequence``: its number; a higher one in the row was taken by another
    controller."""

    content: int
    rows: Rows
    until: float
    sequence: int


class UnchangedHeartbeats:
    """The hosts whose last heartbeat left nothing to do, as one process knows them. Changes by other processes show in
    the rows."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._known: dict[str, _Known] = {}

    def expects(self, message: HostReported) -> bool:
        """Whether this heartbeat is the same as the host's last one."""
        known = self._known.get(message.host)
        return known is not None and known.content == hash(_content(message)) and self._monotonic() < known.until

    def remember(self, message: HostReported, rows: Rows) -> None:
        """Note that this heartbeat, compared with these rows, left nothing to do."""
        self._known[message.host] = _Known(
            hash(_content(message)), rows, self._monotonic() + _TRUSTED_S, message.sequence
        )

    def _rows(self, host: str) -> Rows | None:
        known = self._known.get(host)
        return known.rows if known else None

    def take(self, tx: Transaction, messages: Sequence[HostReported]) -> list[HostReported]:
        """Take the heartbeats of hosts that are up and whose rows have not changed; returns the others, untouched."""
        rows = read_rows(tx, [m.host for m in messages])
        same = {m.host: m for m in messages if rows[m.host] == self._rows(m.host)}
        last: dict[str, int] = {}
        for ids in chunks(sorted(same)):
            # Locked in the order in which claims lock them.
            # A host of whose guests another host shows a second one is looked at in full (``stray_guests``).
            shown_elsewhere = exists().where(StrayGuest.owner_host == Host.id)
            query = select(Host.id, Host.heartbeat_sequence, Host.epoch)
            query = query.where(among(Host.id, ids), Host.up, ~shown_elsewhere).order_by(Host.id)
            last |= {
                row.id: row.heartbeat_sequence
                for row in tx.session.execute(query.with_for_update(key_share=True))
                if same[row.id].epoch in (0, row.epoch)
                and not same[row.id].asks
                and row.heartbeat_sequence == self._known[row.id].sequence
            }
        heard = [m for m in same.values() if m.host in last and (m.sequence > last[m.host] or not m.sequence)]
        warn_of_clocks(tx, heard)
        numbers = [{"host": m.host, "sequence": m.sequence} for m in heard]
        update_rows(tx.session, lambda row: _seen(row, tx.now), _SEEN_ROW, numbers)
        for m in heard:
            self._known[m.host] = replace(self._known[m.host], sequence=m.sequence)
        taken = {m.host for m in heard}
        return [m for m in messages if m.host not in taken]


def rows_of(instances: Iterable[tuple[State, int]]) -> Rows:
    """A digest of the states and generations of a host's instances."""
    counts: Counter[str] = Counter()
    generations: Counter[str] = Counter()
    for state, generation in instances:
        counts[str(state)] += 1
        generations[str(state)] += generation
    return frozenset((state, counts[state], generations[state]) for state in counts)


def read_rows(tx: Transaction, hosts: Sequence[str]) -> Mapping[str, Rows]:
    """The digests of the instances of these hosts, from their rows."""
    found: dict[str, set[tuple[str, int, int]]] = defaultdict(set)
    for ids in chunks(sorted(set(hosts))):
        query = (
            select(Instance.host_id, Instance.state, func.count(), func.sum(Instance.generation))
            .where(among(Instance.host_id, ids))
            .group_by(Instance.host_id, Instance.state)
        )
        for host, state, count, generations in tx.session.execute(query):
            found[host or ""].add((str(state), int(count), int(generations)))
    return {host: frozenset(found[host]) for host in hosts}


def _seen(row: Callable[[str], ColumnElement[Any]], now: datetime) -> Update:
    table = Host.__table__
    return (
        update(table)  # type: ignore[arg-type]
        .where(table.c.id == row("host"))
        .values(last_seen_at=now, heartbeat_sequence=row("sequence"))
    )
