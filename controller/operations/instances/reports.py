"""Agents' reports of their guests, applied to the instances by the transition table."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import structlog
from sqlalchemy import func, select, update

from controller.db.bulk import among
from controller.db.models import Instance, InstanceEvent
from controller.domain.checks import storable
from controller.domain.guests import OffCause
from controller.domain.instances import ShutdownBehavior
from controller.domain.messages import GuestReport, GuestsChanged, OutdatedRequest
from controller.domain.reasons import ReasonCode
from controller.domain.states import REFUSALS, TO_BE_REMOVED, Event, State
from controller.operations.cloud import Transaction
from controller.operations.instances.generations import catch_up, is_believable, is_outdated
from controller.operations.instances.history import record_event
from controller.operations.instances.locking import LockedInstance, chunks, lock_instances
from controller.operations.instances.transitions import doorbells, notify_later, transition

log = structlog.get_logger(__name__)

# What a heartbeat gives as the reason of a change.
SHOWN, NOT_SHOWN = "seen in its host's heartbeat", "its host has no such guest running"
_BY_ITSELF = "the guest powered itself off, and is to be terminated then"
_REMOVED = "its host has removed it with its disk, by a request that is not known here: was the database restored?"
# How much of a reason is kept; an agent sends 500.
_REASON_CHARS = 4000
# How often an instance's history records that its guest could not be removed.
_FAILURES_TOLD = 10


def apply_reports(tx: Transaction, messages: Sequence[GuestsChanged]) -> None:
    """Apply what agents report of their guests. A report that is older than the newest request, or comes from another
    host than the instance's, changes nothing; applying it twice is applying it once."""
    # An agent sends one result for each guest; of several in one message the last counts.
    reports = [(m.host, r) for m in messages for r in {r.instance_id: r for r in m.reports}.values()]
    outdated = [(m.host, o) for m in messages for o in m.outdated]
    rows = {
        i.id: i for i in lock_instances(tx, {r.instance_id for _, r in reports} | {o.instance_id for _, o in outdated})
    }
    reports = [(host, r) for host, r in reports if _is_from_its_host(rows.get(r.instance_id), host)]
    outdated = [(host, o) for host, o in outdated if _is_from_its_host(rows.get(o.instance_id), host)]
    _catch_up(tx, rows, [r for _, r in reports], [o for _, o in outdated])
    # Reports of one guest are applied in their order: each round takes the next report of every guest.
    rounds: list[dict[tuple[Event, str, str], list[LockedInstance]]] = []
    taken: Counter[str] = Counter()
    for _, report in reports:
        instance = rows[report.instance_id]
        if report.generation < instance.generation or not is_believable(instance, report.generation):
            continue
        turn = taken[instance.id]
        taken[instance.id] += 1
        if turn == len(rounds):
            rounds.append(defaultdict(list))
        rounds[turn][report.event, storable(report.reason[:_REASON_CHARS]), report.cause].append(instance)
    for events in rounds:
        for (event, reason, cause), instances in events.items():
            apply_event(tx, instances, event, reason, cause)


def _is_from_its_host(instance: LockedInstance | None, host: str) -> bool:
    if instance is not None and instance.host_id != host:
        log.info("report from a host that does not carry the instance", instance=instance.id, host=host)
    # An instance in a state that only a newer release knows is left to its controllers.
    return instance is not None and instance.host_id == host and instance.state.known


def _catch_up(
    tx: Transaction,
    rows: Mapping[str, LockedInstance],
    reports: Iterable[GuestReport],
    outdated: Iterable[OutdatedRequest],
) -> None:
    """Raise rows whose generation is behind their agents'. A report of a generation that the row does not know is not
    the result that the row waits for, unless the guest is gone."""
    newest: dict[str, int] = {}
    gone = set()
    for report in reports:
        row = rows[report.instance_id]
        if report.generation > row.generation and is_believable(row, report.generation):
            newest[row.id] = max(newest.get(row.id, 0), report.generation)
            if report.event is Event.GONE:
                gone.add(row.id)
    for answer in outdated:
        if is_outdated(rows[answer.instance_id], answer):
            newest[answer.instance_id] = max(newest.get(answer.instance_id, 0), answer.newest)
    catch_up(tx, [rows[i] for i in newest], newest, ended=gone)


def apply_event(
    tx: Transaction, instances: Sequence[LockedInstance], event: Event, reason: str, cause: str = ""
) -> None:
    """Apply an event to those locked instances that it changes; for a late or doubled report these are none."""
    if not event.known:
        log.info("report of a newer release changes nothing", report=event, instance=",".join(i.id for i in instances))
        return
    moving, removed, again, known = _sort(instances, event)
    by_itself = event is Event.SHUT_OFF and cause == OffCause.SHUTDOWN
    went_off = [i for i in moving if by_itself and i.state is not State.STOPPING]
    by_code: dict[str, list[LockedInstance]] = defaultdict(list)
    for instance in moving:
        by_code[_reason_code(event, instance.state, by_itself)].append(instance)
    for code, alike in by_code.items():
        transition(tx, alike, event, detail=reason, reason_code=code)
    transition(tx, removed, event, detail=reason or _REMOVED, reason_code=ReasonCode.GUEST_REMOVED)
    failed = [i for i in moving if i.state is State.ERROR and i.host_id is not None]
    tx.outbox += doorbells(tx, failed)  # their hosts are to remove what is left of them
    _remove_again(tx, again, reason)
    if by_itself:
        _terminate(tx, went_off + _explain(tx, known, reason))


def _reason_code(event: Event, state: State, by_itself: bool) -> str:
    """The code of what is reported of an instance in this state; empty: there is none but the reported reason."""
    if by_itself:
        return ReasonCode.INSTANCE_INITIATED_SHUTDOWN
    if event is not Event.FAILED:
        return ""
    return ReasonCode.BUILD_FAILED if state is State.BUILDING else ReasonCode.START_FAILED


def _sort(instances: Iterable[LockedInstance], event: Event) -> tuple[list[LockedInstance], ...]:
    """Instances that change state; with guests removed without a request; with failed removals; without a change."""
    moving, removed, again, known = [], [], [], []
    for instance in instances:
        state = instance.state
        if why := REFUSALS.get((state, event)):
            log.info("report changes nothing", instance=instance.id, state=state, report=event, reason=why)
        elif (state, event) in ((State.ACTIVE, Event.RUNNING), (State.STOPPED, Event.SHUT_OFF)):
            known.append(instance)
        elif event is Event.FAILED and state in TO_BE_REMOVED:
            again.append(instance)
        elif event is Event.GONE and state not in TO_BE_REMOVED:
            removed.append(instance)
        else:
            moving.append(instance)
    return moving, removed, again, known


def _remove_again(tx: Transaction, instances: Sequence[LockedInstance], reason: str) -> None:
    """Try a failed removal again, as a newer generation with the next, later notification, for as long as it takes."""
    if not instances:
        return
    failures: dict[str, int] = {}
    for ids in chunks([i.id for i in instances]):
        query = select(InstanceEvent.instance_id, func.count()).where(
            among(InstanceEvent.instance_id, ids), InstanceEvent.event == Event.FAILED
        )
        failures |= {row[0]: row[1] for row in tx.session.execute(query.group_by(InstanceEvent.instance_id))}
        newer = update(Instance).where(among(Instance.id, ids)).values(generation=Instance.generation + 1)
        tx.session.execute(newer.execution_options(synchronize_session=False))
    for instance in instances:
        instance.generation += 1
    notify_later(tx, instances)
    record_event(tx, [i for i in instances if failures.get(i.id, 0) < _FAILURES_TOLD], Event.FAILED, reason)


def _explain(tx: Transaction, stopped: Sequence[LockedInstance], reason: str) -> list[LockedInstance]:
    """Write the reason to instances that a heartbeat has found off, without knowing why; answers which these are."""
    unexplained: set[str] = set()
    for ids in chunks([i.id for i in stopped]):
        where = among(Instance.id, ids), Instance.reason.in_((SHOWN, NOT_SHOWN)), Instance.reason_code == ""
        found = list(tx.session.scalars(select(Instance.id).where(*where)))
        explained = update(Instance).where(among(Instance.id, found))
        explained = explained.values(reason=reason, reason_code=ReasonCode.INSTANCE_INITIATED_SHUTDOWN)
        tx.session.execute(explained.execution_options(synchronize_session=False))
        unexplained.update(found)
    return [i for i in stopped if i.id in unexplained]


def _terminate(tx: Transaction, stopped: Sequence[LockedInstance]) -> None:
    """Delete instances whose guests powered themselves off, where their owner wants that (``shutdown_behavior``)."""
    wanted: set[str] = set()
    for ids in chunks([i.id for i in stopped]):
        wants = Instance.shutdown_behavior == ShutdownBehavior.TERMINATE
        wanted.update(tx.session.scalars(select(Instance.id).where(among(Instance.id, ids), wants)))
    ending = [i for i in stopped if i.id in wanted]
    transition(
        tx,
        ending,
        Event.DELETE,
        detail=_BY_ITSELF,
        reason_code=ReasonCode.INSTANCE_INITIATED_SHUTDOWN,
        new_generation=True,
    )
    tx.outbox += doorbells(tx, ending)
