"""Agents' events, applied to the transition table."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

import structlog
from sqlalchemy import func, select, update

from controller.db.bulk import among
from controller.db.models import Host, Instance, InstanceEvent
from controller.domain.checks import storable
from controller.domain.guests import OffCause, Power
from controller.domain.instances import ShutdownBehavior
from controller.domain.messages import UNTOLD, GuestReport, GuestsChanged, GuestState, HostReported, OutdatedRequest
from controller.domain.reasons import ReasonCode
from controller.domain.sightings import AT_ONCE, SIGHTINGS, Sight, sight_of
from controller.domain.states import REFUSALS, Event, State
from controller.operations.cloud import Transaction
from controller.operations.hosts import heartbeats, stray_guests
from controller.operations.hosts.fencing import acceptances
from controller.operations.hosts.unchanged_heartbeats import Rows, rows_of
from controller.operations.instances.generations import catch_up, is_awaited, is_believable, is_outdated
from controller.operations.instances.history import record_event
from controller.operations.instances.locking import LockedInstance, chunks, lock_instances
from controller.operations.instances.transitions import doorbells, notify_later, transition
from controller.operations.networks import quarantine

log = structlog.get_logger(__name__)

# A heartbeat that lacks a guest, or shows it otherwise, is believed only of instances that have been so for a while:
# it may have been written before the last event. The age of the heartbeat counts in addition.
_SETTLED_S = 30
_SEEN, _NOT_SEEN = "seen in its host's heartbeat", "its host has no such guest running"
_BY_ITSELF = "the guest powered itself off, and is to be terminated then"
_REMOVED = "its host has removed it with its disk, by a wish that is not known here: was the database restored?"
# An agent says 500.
_REASON_CHARS = 4000
# So often a story tells that a guest could not be removed.
_FAILURES_TOLD = 10
_TO_BE_REMOVED = (State.DELETING, State.ERROR)
_UNTOLD = (Sight.UNTOLD_RUNNING, Sight.UNTOLD_SHUT_OFF)


def apply_reports(tx: Transaction, messages: Sequence[GuestsChanged]) -> None:
    """Apply what agents say became of their guests. What is older than the newest wish, or comes from a host that
    the instance is not on, changes nothing; applying it twice is applying it once."""
    # An agent has one result of each guest; of several in one message the last counts.
    reports = [(m.host, r) for m in messages for r in {r.instance_id: r for r in m.reports}.values()]
    outdated = [(m.host, o) for m in messages for o in m.outdated]
    rows = {
        i.id: i for i in lock_instances(tx, {r.instance_id for _, r in reports} | {o.instance_id for _, o in outdated})
    }
    reports = [(host, r) for host, r in reports if _is_from_its_host(rows.get(r.instance_id), host)]
    outdated = [(host, o) for host, o in outdated if _is_from_its_host(rows.get(o.instance_id), host)]
    _catch_up(tx, rows, [r for _, r in reports], [o for _, o in outdated])
    # What was reported of one guest is applied in order: each round takes the next report of every guest.
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
            _apply(tx, instances, event, reason, cause)


def apply_heartbeats(tx: Transaction, messages: Iterable[HostReported]) -> Mapping[str, Rows]:
    """Take hosts' heartbeats: renew the hosts, and mend what lost events left behind. Late ones change nothing.

    Returns:
        The hosts of which nothing is left to do as long as they tell the same, with what the rows say of them.

    Raises:
        PoisonMessage: a heartbeat that cannot be true.
    """
    newest = heartbeats.newest_of(messages)
    # Of a host that is not registered (any more), too: what was given up with it is looked at when it comes back.
    carried: dict[str, dict[str, tuple[State, int]]] = {host: {} for host in newest}
    epochs: dict[str, int] = {}
    query = select(Instance.id, Instance.state, Instance.generation, Instance.host_id, Host.epoch)
    query = query.join(Host, Host.id == Instance.host_id)
    for instance_id, state, generation, host_id, epoch in tx.session.execute(
        query.where(among(Instance.host_id, carried))
    ):
        carried[host_id or ""][instance_id] = State(state), generation
        epochs[host_id or ""] = epoch
    differing: dict[str, GuestState | None] = {}
    for host, on_host in carried.items():
        seen, pending = {g.instance_id: g for g in newest[host].guests}, set(newest[host].pending)
        differing |= {
            i: seen.get(i)
            for i, row in on_host.items()
            if _differs(*row, seen.get(i)) and not (i in pending and _is_off(seen.get(i)))
        }
    # Instances before their hosts, as everybody locks them (see ``held``); only then is known who may be believed.
    # What is no host's own, too: see ``stray_guests``.
    own = {i for on_host in carried.values() for i in on_host}
    strange = {i for host, mine in carried.items() for i in stray_guests.strangers(newest[host], mine)} - own
    instances = lock_instances(tx, differing.keys() | strange)
    kept = quarantine.lock_kept(tx, newest.values())
    written = len(tx.outbox)
    heard = heartbeats.report_all(tx, newest.values())
    tx.session.flush()
    # Not with what a host carried before it was removed and came back meanwhile.
    tx.outbox += acceptances(tx, [h for h in heard if epochs.get(h.message.host, h.before) == h.before], carried)
    stray_guests.look_at(tx, heard, carried)
    quarantine.look_at(tx, heard, kept)
    believed = {h.message.host for h in heard}
    late = {host: heartbeats.lateness(tx, newest[host]) for host in believed}
    _mend(tx, [i for i in instances if i.host_id in believed and i.id in carried[i.host_id]], differing, late)
    busy = {getattr(m, "host", "") for m in tx.outbox[written:]}
    # Of what never joined nothing is remembered: there may be any number of such names.
    known = {h.message.host for h in heard if h.registered} - busy
    at_rest = {h: on_host for h, on_host in carried.items() if h in known and not differing.keys() & on_host}
    return {
        host: rows_of(on_host.values())
        for host, on_host in at_rest.items()
        if all(g.instance_id in on_host for g in newest[host].guests)
    }


def _is_from_its_host(instance: LockedInstance | None, host: str) -> bool:
    if instance is not None and instance.host_id != host:
        log.info("report from a host that does not carry the instance", instance=instance.id, host=host)
    # What is in a state that only a newer release knows is left to its controllers.
    return instance is not None and instance.host_id == host and instance.state.known


def _catch_up(
    tx: Transaction,
    rows: Mapping[str, LockedInstance],
    reports: Iterable[GuestReport],
    outdated: Iterable[OutdatedRequest],
) -> None:
    """Raise the rows that are behind what these say. A report from ahead is not what a row's wish waits for, unless it
    says that the guest is gone."""
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


def _apply(tx: Transaction, instances: Sequence[LockedInstance], event: Event, reason: str, cause: str = "") -> None:
    """Apply where the table has a row that changes something; a late or doubled report has none."""
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
    tx.outbox += doorbells(tx, failed)  # what is left of them is to go
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
    """Those that the event moves; whose guests were removed unasked; whose removal failed; that are so already."""
    moving, removed, again, known = [], [], [], []
    for instance in instances:
        state = instance.state
        if why := REFUSALS.get((state, event)):
            log.info("report changes nothing", instance=instance.id, state=state, report=event, reason=why)
        elif (state, event) in ((State.ACTIVE, Event.RUNNING), (State.STOPPED, Event.SHUT_OFF)):
            known.append(instance)
        elif event is Event.FAILED and state in _TO_BE_REMOVED:
            again.append(instance)
        elif event is Event.GONE and state not in _TO_BE_REMOVED:
            removed.append(instance)
        else:
            moving.append(instance)
    return moving, removed, again, known


def _remove_again(tx: Transaction, instances: Sequence[LockedInstance], reason: str) -> None:
    """What could not be removed is tried again, by a newer wish and at a later ring, for as long as it takes."""
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
    """A heartbeat was quicker to say that these are off, and did not know why; answers which these are."""
    unexplained: set[str] = set()
    for ids in chunks([i.id for i in stopped]):
        where = among(Instance.id, ids), Instance.reason.in_((_SEEN, _NOT_SEEN)), Instance.reason_code == ""
        found = list(tx.session.scalars(select(Instance.id).where(*where)))
        explained = update(Instance).where(among(Instance.id, found))
        explained = explained.values(reason=reason, reason_code=ReasonCode.INSTANCE_INITIATED_SHUTDOWN)
        tx.session.execute(explained.execution_options(synchronize_session=False))
        unexplained.update(found)
    return [i for i in stopped if i.id in unexplained]


def _terminate(tx: Transaction, stopped: Sequence[LockedInstance]) -> None:
    """Delete those of the guests that powered themselves off whose owner wants them deleted then."""
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


def _is_off(guest: GuestState | None) -> bool:
    """Of one that its agent has work in hand for, this says nothing: what comes of the work will be reported."""
    return guest is None or guest.power is not Power.RUNNING


def _differs(state: State, generation: int, guest: GuestState | None) -> bool:
    if not state.known or (guest is not None and not guest.power.known):
        return False  # only a newer release knows what that means
    if guest and guest.generation == generation and state is State.ACTIVE and guest.power is Power.RUNNING:
        return False  # nearly all, nearly always
    ahead = guest is not None and guest.generation > generation
    return ahead or (state, sight_of(guest)) in SIGHTINGS


def _mend(
    tx: Transaction,
    instances: Sequence[LockedInstance],
    shown: Mapping[str, GuestState | None],
    late: Mapping[str, timedelta],
) -> None:
    """Apply what heartbeats show of locked instances, by the table of sightings; ``late`` says how old they are."""
    newest: dict[str, int] = {}
    groups: dict[tuple[Event, str], list[LockedInstance]] = defaultdict(list)
    forgotten = []
    for instance in instances:
        state, guest = instance.state, shown[instance.id]
        if not state.known:
            continue  # since it was read
        if guest is not None and guest.generation > instance.generation:
            if not is_believable(instance, guest.generation):
                continue
            newest[instance.id] = guest.generation
            if is_awaited(instance):
                continue  # what is seen is not what its wish waits for
        sight = sight_of(guest)
        event = SIGHTINGS.get((state, sight))
        # What is dated in the future was written by a clock that was wrong.
        at_least = timedelta(seconds=_SETTLED_S) + late[instance.host_id or ""]
        settled = abs(tx.now - instance.state_since) > at_least
        if event is None or not (settled or (state, sight) in AT_ONCE):
            continue
        if _is_behind(instance, guest) and state is not State.UNKNOWN:
            continue  # the newest wish has not been carried out yet
        groups[event, _SEEN if guest else _NOT_SEEN].append(instance)
        if sight in _UNTOLD and state is not State.UNKNOWN:
            forgotten.append(instance)
    catch_up(tx, [i for i in instances if i.id in newest], newest)
    for (event, detail), alike in groups.items():
        _apply(tx, alike, event, detail)
    tx.outbox += doorbells(tx, forgotten)  # their agent has lost its journal: it is told again


def _is_behind(instance: LockedInstance, guest: GuestState | None) -> bool:
    return guest is not None and UNTOLD < guest.generation < instance.generation
