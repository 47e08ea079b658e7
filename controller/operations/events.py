"""Agents' events, applied to the transition table."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import timedelta

import structlog
from sqlalchemy import select

from controller.db.models import Instance
from controller.domain.messages import (
    UNTOLD,
    Desired,
    GuestReport,
    GuestsChanged,
    GuestSpec,
    GuestState,
    HostReported,
    Power,
    ReconcileGuests,
)
from controller.domain.states import Event, State, allows
from controller.operations import heartbeats
from controller.operations.cloud import Transaction
from controller.operations.held import HeldInstance, lock_instances
from controller.operations.lifecycle import doorbells, move

log = structlog.get_logger(__name__)

_EVENT_OF = {Power.RUNNING: Event.RUNNING, Power.SHUT_OFF: Event.SHUT_OFF}
# A heartbeat that lacks a guest, or shows it otherwise, is believed only of instances that have been so for a while:
# it may have been written before the last event.
_SETTLED_S = 30
# The states in which a guest ought to be seen on its host.
_SHOULD_BE = frozenset({State.ACTIVE, State.UNKNOWN, State.STOPPED})
# The states in which its host is making a wish true.
_UNDER_WAY = frozenset({State.BUILDING, State.STARTING, State.STOPPING, State.REBOOTING})


def apply_reports(tx: Transaction, messages: Sequence[GuestsChanged]) -> None:
    """Apply what agents say became of their guests. What is older than the newest wish, or comes from a host that
    the instance is not on, changes nothing; applying it twice is applying it once."""
    reports = [(m.host, r) for m in messages for r in m.reports]
    rows = {i.id: i for i in lock_instances(tx, {r.instance_id for _, r in reports})}
    # What was reported of one guest is applied in order: each round takes the next report of every guest.
    rounds: list[dict[tuple[Event, str], list[HeldInstance]]] = []
    taken: Counter[str] = Counter()
    for host, report in reports:
        instance = rows.get(report.instance_id)
        if instance is None or not _counts(instance, report, host):
            continue
        turn = taken[instance.id]
        taken[instance.id] += 1
        if turn == len(rounds):
            rounds.append(defaultdict(list))
        rounds[turn][report.event, report.reason].append(instance)
    for events in rounds:
        for (event, reason), instances in events.items():
            _apply(tx, instances, event, reason)


def apply_heartbeats(tx: Transaction, messages: Iterable[HostReported]) -> None:
    """Take hosts' heartbeats: renew the hosts, and mend what lost events left behind. Late ones change nothing.

    Raises:
        PoisonMessage: a heartbeat that cannot be true.
    """
    newest = heartbeats.newest_of(messages)
    # Of a host that is not registered (any more), too: what was given up with it is to go when it comes back.
    carried: dict[str, dict[str, State]] = {host: {} for host in newest}
    query = select(Instance.id, Instance.state, Instance.host_id).where(Instance.host_id.in_(carried))
    for instance_id, state, host_id in tx.session.execute(query):
        carried[host_id or ""][instance_id] = State(state)
    differing: dict[str, GuestState | None] = {}
    for host, on_host in carried.items():
        seen = {g.instance_id: g for g in newest[host].guests}
        differing |= {i: seen.get(i) for i, state in on_host.items() if _differs(state, seen.get(i))}
    # Instances before their hosts, as everybody locks them (see ``held``); only then is known who may be believed.
    instances = lock_instances(tx, differing)
    believed = {m.host for m in heartbeats.report_all(tx, newest.values())}
    tx.session.flush()
    for host in sorted(believed):
        _send_away(tx, newest[host], set(carried[host]))
    for instance in instances:
        if instance.host_id in believed and instance.id in carried[instance.host_id]:
            _mend(tx, instance, differing[instance.id])


def _counts(instance: HeldInstance, report: GuestReport, host: str) -> bool:
    if instance.host_id != host:
        log.info("report from a host that does not carry the instance", instance=instance.id, host=host)
        return False
    return report.generation >= instance.generation


def _apply(tx: Transaction, instances: Sequence[HeldInstance], event: Event, reason: str) -> None:
    """Apply where the table has a row that changes something; a late or doubled report has none."""
    fit = [i for i in instances if allows(i.state, event) and not _is_old_news(i, event)]
    move(tx, fit, event, detail=reason, reason_code="Server.InternalError" if event is Event.FAILED else "")
    failed = [i for i in fit if i.state == State.ERROR and i.host_id is not None]
    tx.outbox += doorbells(tx, failed)  # what is left of them is to go


def _is_old_news(instance: HeldInstance, event: Event) -> bool:
    """Whether the report only says what the row says already."""
    return (instance.state, event) in {(State.ACTIVE, Event.RUNNING), (State.STOPPED, Event.SHUT_OFF)}


def _differs(state: State, guest: GuestState | None) -> bool:
    if guest is None:
        return state in _SHOULD_BE
    if guest.generation == UNTOLD:
        return state in _SHOULD_BE or state in _UNDER_WAY
    if state is State.ACTIVE:
        return guest.power is not Power.RUNNING
    if state is State.STOPPED:
        return guest.power is not Power.SHUT_OFF
    return state is State.UNKNOWN or state in _UNDER_WAY


def _mend(tx: Transaction, instance: HeldInstance, guest: GuestState | None) -> None:
    state = instance.state
    # What is dated in the future was written by a clock that was wrong.
    settled = abs(tx.now - instance.state_since) > timedelta(seconds=_SETTLED_S)
    if guest is None:
        if state in (State.ACTIVE, State.UNKNOWN) and settled:
            _apply(tx, [instance], Event.SHUT_OFF, "its host has no such guest running")
        return
    at_rest = state in (State.ACTIVE, State.STOPPED)
    forgotten = guest.generation == UNTOLD and at_rest
    if guest.generation < instance.generation and state is not State.UNKNOWN and not forgotten:
        return  # the newest wish has not been carried out yet
    if at_rest and not settled:
        return
    _apply(tx, [instance], _EVENT_OF[guest.power], "seen in its host's heartbeat")
    if forgotten:
        tx.outbox += doorbells(tx, [instance])  # the agent has lost its journal: it is told again


def _send_away(tx: Transaction, message: HostReported, on_host: set[str]) -> None:
    """Guests of instances that are deleted or given up, or live elsewhere, are to go; those without any row are left
    to the audit: a database that was restored from yesterday must not delete today's machines."""
    strangers = {g.instance_id: g for g in message.guests if g.instance_id not in on_host}
    if not strangers:
        return
    rows = tx.session.scalars(select(Instance).where(Instance.id.in_(strangers))).all()
    ended = (State.DELETED, State.ERROR)
    gone = [i for i in rows if i.state in ended or (i.host_id not in (None, message.host))]
    specs = [_absent(i, strangers[i.id]) for i in gone]
    if specs:
        log.warning("guests that should not be on this host are sent away", host=message.host, count=len(specs))
        tx.outbox.append(ReconcileGuests(message.host, tuple(specs)))


def _absent(instance: Instance, guest: GuestState) -> GuestSpec:
    return GuestSpec(
        instance_id=instance.id,
        generation=max(instance.generation, guest.generation + 1),
        desired=Desired.ABSENT,
        project_id=instance.project_id,
        name=instance.id,
        vcpus=instance.vcpus,
        memory_mib=instance.memory_mib,
        disk_gib=instance.disk_gib,
    )
