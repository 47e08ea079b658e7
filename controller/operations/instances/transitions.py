"""Transitions of instances: the state, and everything that changes with it, in one transaction.

The only writer of ``Instance.state``. Deadline, next notification, quota, claim, lease and history follow the state
here.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, String, Update, update
from sqlalchemy.types import TypeEngine

from controller.db.bulk import among, update_rows
from controller.db.models import Instance
from controller.domain.messages import Message, PrepareNetworks, ScheduleReservation
from controller.domain.states import DEADLINE_S, UNCOUNTED, Event, State, is_awaited, next_state
from controller.operations.accounts import quotas
from controller.operations.accounts.quotas import Usage
from controller.operations.cloud import Transaction
from controller.operations.hosts import claims
from controller.operations.instances.guest_specs import reconcile_commands
from controller.operations.instances.history import Detail, record_event
from controller.operations.instances.locking import LockedInstance, chunks, lock_instances
from controller.operations.networks.leases import give_back

_RELEASING = frozenset({Event.GONE, Event.HOST_GONE})
_PLACE_ROW: Mapping[str, TypeEngine[Any]] = {"instance": String(), "host": String()}

__all__ = ["doorbells", "lock_instances", "notify_later", "transition", "waiting"]


def transition(
    tx: Transaction,
    instances: Iterable[LockedInstance],
    event: Event,
    *,
    detail: Detail = "",
    reason_code: str = "",
    new_generation: bool = False,
) -> None:
    """Apply ``event`` to locked instances. ``new_generation`` makes it a newer generation, so that agents carry it out.

    Where the event ends what a host holds (GONE, HOST_GONE), claim, lease and host are released; with PLACED the
    ``host_id`` of the instances is written. The number of statements does not grow with that of the hosts.

    Raises:
        IncorrectInstanceState: the table has no such row for one of them; nothing may be committed then.
    """
    moved = [(i, i.state, next_state(i.state, event)) for i in instances]
    if event is Event.EXPIRED:
        _mark_overdue(tx, [i for i, before, after in moved if after is before], detail)
        moved = [(i, before, after) for i, before, after in moved if after is not before]
    if not moved:
        return
    # Locked in the order of every transaction: leases, projects, hosts (``instances.locking``).
    released = _release(tx, [i for i, _, _ in moved]) if event in _RELEASING else {}
    quotas.give_back(tx, _uncounted(moved))
    claims.give_back(tx, released)
    alike: dict[tuple[Any, ...], list[LockedInstance]] = defaultdict(list)
    for instance, before, after in moved:
        newer = new_generation or (after is State.ERROR and before is not State.ERROR)
        first_boot = after in (State.ACTIVE, State.STOPPED) and instance.launched_at is None
        alike[before, after, newer, first_boot, instance.host_id is not None].append(instance)
    for (before, after, newer, first_boot, on_host), group in alike.items():
        values: dict[str, Any] = {**waiting(tx, after, on_host=on_host)}
        if event in _RELEASING:
            values["host_id"] = None
        values |= _reason(event, before, after, detail if isinstance(detail, str) else "", reason_code)
        if first_boot:
            values["launched_at"] = tx.now
        _write(tx, group, after, values, newer, with_hosts=event is Event.PLACED)
    record_event(tx, [i for i, _, _ in moved], event, detail)


def waiting(tx: Transaction, state: State, *, on_host: bool) -> dict[str, datetime | State | int | None]:
    """The columns that follow a state: since when, its deadline, the next notification (``ring_at``, ``rings``)."""
    deadline_s = DEADLINE_S.get(state)
    awaited = is_awaited(state, on_host=on_host)
    columns: dict[str, datetime | State | int | None] = {
        "state": state,
        "state_since": tx.now,
        "deadline_at": tx.now + timedelta(seconds=deadline_s) if deadline_s else None,
        "ring_at": tx.now + timedelta(seconds=tx.settings.controller.ring_after_s) if awaited else None,
        "rings": 0,
    }
    if state is State.DELETED:
        columns["deleted_at"] = tx.now
    return columns


def notify_later(tx: Transaction, instances: Iterable[LockedInstance]) -> None:
    """Set when the service in charge of each is notified again: the pause doubles each time, up to ``ring_max_s``."""
    conf = tx.settings.controller
    by_count: dict[int, list[str]] = defaultdict(list)
    for instance in instances:
        by_count[min(instance.rings + 1, 30)].append(instance.id)
    for rings, ids in by_count.items():
        pause_s = min(conf.ring_after_s * 2**rings, conf.ring_max_s)
        _update(tx, ids, {"rings": rings, "ring_at": tx.now + timedelta(seconds=pause_s)})


def doorbells(tx: Transaction, instances: Sequence[LockedInstance]) -> list[Message]:
    """The messages that wake the services in charge of these instances, by their state."""
    messages: list[Message] = []
    requested = {i.reservation_id for i in instances if i.state is State.REQUESTED}
    messages += [ScheduleReservation(r) for r in sorted(requested)]
    building = [i for i in instances if i.state is State.BUILDING]
    if building:
        networks = tuple(sorted({i.network_id for i in building}))
        messages.append(PrepareNetworks(networks, tuple(sorted(i.id for i in building))))
    others = [i for i in instances if i.state not in (State.REQUESTED, State.BUILDING)]
    return messages + list(reconcile_commands(tx, others))


def _mark_overdue(tx: Transaction, instances: Sequence[LockedInstance], detail: Detail) -> None:
    """Record that their deadline is over; they stay in their state, and keep the time since when."""
    _update(tx, [i.id for i in instances], {"deadline_at": None})
    for instance in instances:
        instance.deadline_at = None
    record_event(tx, instances, Event.EXPIRED, detail)


def _reason(event: Event, before: State, after: State, detail: str, code: str) -> Mapping[str, str]:
    """The reason of a state; empty if a user requested it. A failed instance keeps its reason to the end."""
    failed = (after is State.ERROR and before is not State.ERROR) or (event is Event.FAILED and after is State.STOPPED)
    if failed or (event is Event.SHUT_OFF and before is not State.STOPPING):
        return {"reason": detail, "reason_code": code}
    if event is Event.DELETE and before is not State.ERROR:
        return {"reason": detail if code else "", "reason_code": code}
    if after in (State.ACTIVE, State.STARTING, State.STOPPING, State.STOPPED):
        return {"reason": "", "reason_code": ""}
    return {}


def _write(
    tx: Transaction,
    group: Sequence[LockedInstance],
    after: State,
    values: dict[str, Any],
    newer: bool,
    *,
    with_hosts: bool,
) -> None:
    written = values | ({"generation": Instance.generation + 1} if newer else {})
    if with_hosts:
        _write_hosts(tx, group, written)
    else:
        _update(tx, [i.id for i in group], written)
    for instance in group:
        instance.state = after
        instance.generation += newer
        instance.state_since = tx.now
        instance.deadline_at, instance.ring_at, instance.rings = values["deadline_at"], values["ring_at"], 0
        instance.launched_at = values.get("launched_at", instance.launched_at)


def _write_hosts(tx: Transaction, placed: Sequence[LockedInstance], values: Mapping[str, Any]) -> None:
    """Write to each row its own host, and ``values`` to all, in one go: each version of a row is one in each index."""

    def place(row: Callable[[str], ColumnElement[Any]]) -> Update:
        table = Instance.__table__
        return update(table).where(table.c.id == row("instance")).values(host_id=row("host"), **values)  # type: ignore[arg-type]

    if tx.session.get_bind().dialect.name == "postgresql":
        rows = [{"instance": i.id, "host": i.host_id} for i in placed]
        update_rows(tx.session, place, _PLACE_ROW, rows)
        return
    by_host: dict[str | None, list[str]] = defaultdict(list)
    for instance in placed:
        by_host[instance.host_id].append(instance.id)
    for host_id, ids in by_host.items():
        _update(tx, ids, {**values, "host_id": host_id})


def _update(tx: Transaction, ids: Sequence[str], values: Mapping[str, Any]) -> None:
    for chunk in chunks(ids):
        tx.session.execute(
            update(Instance)
            .where(among(Instance.id, chunk))
            .values(**values)
            .execution_options(synchronize_session=False)
        )


def _release(tx: Transaction, instances: Sequence[LockedInstance]) -> claims.Released:
    """Release claims and leases of instances whose guests are gone; answers with what their hosts get back."""
    ids = [i.id for i in instances]
    released = claims.delete_claims(tx, ids)
    networks: set[str] = set()
    for chunk in chunks(ids):
        networks |= give_back(tx, chunk)
    for instance in instances:
        instance.host_id = None
    if networks:
        tx.outbox.append(PrepareNetworks(tuple(sorted(networks))))
    return released


def _uncounted(moved: Iterable[tuple[LockedInstance, State, State]]) -> Mapping[str, Usage]:
    """What each project's quota gets back, by the states before and after."""
    released: dict[str, Usage] = defaultdict(Usage)
    for instance, before, after in moved:
        change = (after in UNCOUNTED) - (before in UNCOUNTED)
        usage = released[instance.project_id]
        usage.instances += change
        usage.vcpus += change * instance.vcpus
        usage.memory_mib += change * instance.memory_mib
    return released
