"""Locked instances: rows that are locked in the database, with a few of their columns in memory.

Thousands of them change in one transaction, so they are plain records, not ORM objects: read by one SELECT, written
by one UPDATE for each group with the same change.

Every transaction locks several kinds of rows in one order, so that there are no deadlocks: **instances (by id), leases,
projects (by id), hosts (by id)**. A transaction that learns from a host which instances it has to change reads those
without a lock, locks them, then locks the host and compares again.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Select, func, select

from controller.db.bulk import among
from controller.db.models import Host, Instance
from controller.domain.states import State
from controller.operations.cloud import Transaction

T = TypeVar("T")

# How many ids one statement names at most: engines limit the parameters of a statement.
CHUNK = 1000


@dataclass(slots=True)
class LockedInstance:
    """An instance whose row is locked until the transaction ends; fields follow what is written."""

    id: str
    reservation_id: str
    launch_index: int
    project_id: str
    state: State
    state_since: datetime
    deadline_at: datetime | None
    ring_at: datetime | None
    rings: int
    generation: int
    image_id: str
    instance_type: str
    vcpus: int
    memory_mib: int
    disk_gib: int
    zone: str
    group_id: str | None
    wanted_ip: str
    network_id: str
    host_id: str | None
    launched_at: datetime | None


_COLUMNS = tuple(getattr(Instance, name) for name in LockedInstance.__slots__)


def lock_instances(tx: Transaction, ids: Collection[str]) -> list[LockedInstance]:
    """The instances of these ids, locked in the order of their ids until the transaction ends."""
    ordered = sorted(ids)
    found: list[LockedInstance] = []
    for chunk in chunks(ordered):
        found += _lock(tx, among(Instance.id, chunk))
    return found


def read_instances(tx: Transaction, ids: Collection[str]) -> list[LockedInstance]:
    """The instances of these ids, not locked: for messages about them."""
    found: list[LockedInstance] = []
    for chunk in chunks(sorted(ids)):
        found += _read(tx, select(*_COLUMNS).where(among(Instance.id, chunk)))
    return found


def lock_requested(tx: Transaction, reservation_ids: Collection[str]) -> list[LockedInstance]:
    """The instances of these reservations that are REQUESTED, locked."""
    found: list[LockedInstance] = []
    for chunk in chunks(sorted(reservation_ids)):
        found += _lock(tx, among(Instance.reservation_id, chunk), Instance.state == State.REQUESTED)
    return found


def count_requested(tx: Transaction, reservation_ids: Collection[str]) -> dict[str, int]:
    """How many instances are REQUESTED of each of these reservations; those that have none are left out."""
    counted: dict[str, int] = {}
    for chunk in chunks(sorted(reservation_ids)):
        of = Instance.reservation_id
        query = select(of, func.count()).where(among(of, chunk), Instance.state == State.REQUESTED).group_by(of)
        counted |= {row[0]: row[1] for row in tx.session.execute(query)}
    return counted


def lock_hosts(tx: Transaction, ids: Sequence[str]) -> None:
    """Lock hosts in the order of their ids before their counters change; a single one is locked by the change
    itself."""
    for chunk in chunks(sorted(ids)) if len(ids) > 1 else ():
        locked = select(Host.id).where(among(Host.id, chunk)).order_by(Host.id).with_for_update(key_share=True)
        tx.session.execute(locked).all()


def chunks(ids: Sequence[str]) -> list[Sequence[str]]:
    """The ids in parts of ``CHUNK``, for one statement each."""
    return [ids[n : n + CHUNK] for n in range(0, len(ids), CHUNK)]


def in_portions(items: Iterable[T], weigh: Callable[[T], int], most: int) -> Iterator[list[T]]:
    """The items in order, in parts that weigh at most ``most`` together; an item that weighs more comes alone."""
    portion: list[T] = []
    weight = 0
    for item in items:
        weight += weigh(item)
        if portion and weight > most:
            yield portion
            portion, weight = [], weigh(item)
        portion.append(item)
    if portion:
        yield portion


def _lock(tx: Transaction, *where: ColumnElement[bool]) -> list[LockedInstance]:
    return _read(tx, select(*_COLUMNS).where(*where).order_by(Instance.id).with_for_update())


def _read(tx: Transaction, query: Select[Any]) -> list[LockedInstance]:
    return [_held(*row) for row in tx.session.execute(query)]


def _held(
    instance_id: str, reservation_id: str, launch_index: int, project_id: str, state: str, *rest: Any
) -> LockedInstance:
    return LockedInstance(instance_id, reservation_id, launch_index, project_id, State(state), *rest)
