"""Heartbeats: what they say of their hosts is written down; hosts whose heartbeats stopped are down."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import lru_cache

import structlog
from sqlalchemy import and_, case, literal, or_, select, update
from sqlalchemy.orm.attributes import set_committed_value

from controller.db.bulk import among
from controller.db.models import Host, Instance
from controller.domain.agent_messages import check
from controller.domain.checks import one_line
from controller.domain.drift import drift
from controller.domain.host_facts import CAPACITIES, DRIFTING
from controller.domain.messages import PROBE_PENDING, HostReported
from controller.domain.states import Event, State
from controller.operations.cloud import Transaction
from controller.operations.hosts.fencing import Heard, catch_up, hear_removed, remarks_text
from controller.operations.hosts.hosts import register, set_facts
from controller.operations.instances.locking import chunks
from controller.operations.instances.transitions import lock_instances, transition

log = structlog.get_logger(__name__)

# Hosts, and instances of theirs, that one transaction takes for lost at most.
LOST_AT_ONCE = 1000
# The age of a heartbeat counts up to this.
_LATEST = timedelta(minutes=10)


def report(tx: Transaction, message: HostReported) -> Host | None:
    """Take one heartbeat: see ``report_all``. None: the host has not joined, and registration is not open."""
    report_all(tx, [message])
    return tx.session.get(Host, message.host)


def report_all(tx: Transaction, messages: Iterable[HostReported]) -> list[Heard]:
    """Take heartbeats, the newest one of each host: renew what is known of the hosts, register those that are new.

    An unchanged host costs a share of one SELECT and one UPDATE. What the heartbeats say of guests is not taken here.
    Where registration is not open, nothing is written of hosts that never joined.

    Returns:
        Those that may be believed, of strangers too: one for each host at most, none that came late (``_is_late``).

    Raises:
        PoisonMessage: a heartbeat that cannot be true.
    """
    newest = newest_of(messages)
    for message in newest.values():
        check(message)
    # Locked in the order in which claims lock them.
    query = select(Host).where(among(Host.id, newest)).order_by(Host.id).with_for_update(key_share=True)
    hosts = {h.id: h for h in tx.session.scalars(query.execution_options(populate_existing=True))}
    believed: list[Heard] = []
    unchanged = []
    strangers: dict[str, HostReported] = {}
    for host_id in sorted(newest):
        message, host = newest[host_id], hosts.get(host_id)
        if host is not None and _is_late(host, message):
            _put_aside(host, message)
            continue
        if host is None and not _is_open(tx):
            strangers[host_id] = message
            _log_stranger(host_id)
        elif host is None:
            epoch = register(tx, message).epoch
            believed.append(Heard(message, True, epoch, before=epoch))
        else:
            before = host.epoch
            _renew(tx, host, message)
            if not tx.session.is_modified(host):
                unchanged.append((host, message.sequence))
            believed.append(Heard(message, True, host.epoch, before))
    _seen(tx, unchanged)
    warn_of_clocks(tx, [*(heard.message for heard in believed), *strangers.values()])
    epochs = hear_removed(tx, strangers) if strangers else {}
    for host_id, message in strangers.items():
        epoch = epochs.get(host_id, 0)
        believed.append(Heard(message, False, epoch, before=epoch))
    return believed


def mark_lost(tx: Transaction) -> list[str]:
    """Hosts whose heartbeats stopped are down, their running instances UNKNOWN: no guest is stopped for it.

    A bounded part of the work, so that no other transaction waits for long. Answers with the hosts for which there
    was something to do; to be called again until there are none.
    """
    before = tx.now - timedelta(seconds=tx.settings.controller.host_down_after_s)
    silent = and_(Host.up, Host.last_seen_at < before)
    names = tx.session.scalars(select(Host.id).where(silent).order_by(Host.id).limit(LOST_AT_ONCE)).all()
    # Those of hosts that were down before, too: a report of theirs may have come late.
    carried = tx.session.execute(
        select(Instance.id, Instance.host_id)
        .join(Host, Host.id == Instance.host_id)
        .where(Instance.state == State.ACTIVE, or_(Host.up.is_(False), among(Host.id, names)))
        .order_by(Instance.host_id)
        .limit(LOST_AT_ONCE)
    ).all()
    # Instances before their hosts, as everybody locks them (see ``held``).
    instances = [i for i in lock_instances(tx, [row.id for row in carried]) if i.state is State.ACTIVE]
    wanted = sorted({*names, *(row.host_id or "" for row in carried)})
    last_seen: dict[str, datetime] = {}
    for ids in chunks(wanted):
        query = select(Host.id, Host.last_seen_at).where(among(Host.id, ids), or_(silent, Host.up.is_(False)))
        locked = query.order_by(Host.id).with_for_update(key_share=True, skip_locked=True)
        last_seen |= {row.id: row.last_seen_at for row in tx.session.execute(locked)}
    down = [name for name in names if name in last_seen]
    for ids in chunks(down):
        quiet = {"synchronize_session": False}
        lose = update(Host).where(among(Host.id, ids)).values(up=False, changed_at=tx.now)
        tx.session.execute(lose.execution_options(**quiet))
    lost = [i for i in instances if i.host_id in last_seen]
    transition(
        tx,
        lost,
        Event.HOST_LOST,
        detail=lambda i: f"host {i.host_id} was last heard of at {last_seen[i.host_id or '']:%FT%TZ}",
    )
    _date_anew(tx)
    return sorted({*down, *(i.host_id or "" for i in lost)})


def _date_anew(tx: Transaction) -> None:
    """Hosts that were heard of in the future were dated by a clock that was wrong: their silence counts from now."""
    ahead = Host.last_seen_at > tx.now + timedelta(seconds=tx.settings.controller.clock_skew_warn_s)
    query = select(Host.id).where(Host.up, ahead).order_by(Host.id).limit(LOST_AT_ONCE)
    names = tx.session.scalars(query.with_for_update(key_share=True, skip_locked=True)).all()
    for ids in chunks(names):
        dated = update(Host).where(among(Host.id, ids)).values(last_seen_at=tx.now)
        tx.session.execute(dated.execution_options(synchronize_session=False))


def newest_of(messages: Iterable[HostReported]) -> dict[str, HostReported]:
    """The heartbeat of each host with the highest number; of those without a number, the last."""
    newest: dict[str, HostReported] = {}
    for message in messages:
        if message.host not in newest or message.sequence >= newest[message.host].sequence:
            newest[message.host] = message
    return newest


def lateness(tx: Transaction, message: HostReported) -> timedelta:
    """How long ago a heartbeat was written, by its host's clock: it may have waited. A clock that is far behind is
    wrong, and hides what its host shows for ``_LATEST`` only."""
    try:
        age = tx.now - datetime.fromisoformat(message.at)
    except (ValueError, TypeError):
        return timedelta()
    return min(max(age, timedelta()), _LATEST)


def _is_late(host: Host, message: HostReported) -> bool:
    """Whether a heartbeat tells what was: it has no higher number than the last one that was taken.

    An agent counts its heartbeats, beginning at the milliseconds of its clock, so what it sends after a restart has
    higher numbers, too. Only one whose clock was set back before its restart is in the right with lower ones. Nothing
    tells these from late ones but that no higher ones come any more; so they are heeded once the host is down, and then
    from the second one on: the first is remembered as the last (``_put_aside``), as a single straggler does not mean
    that the host lives. Its guests are UNKNOWN for these few seconds, and run on. A late one from before the clock was
    set back has the highest number of all: it is believed, and all of this happens once more.

    Down, not ``last_seen_at``, is the measure: after a pause of all controllers everything was last seen long ago, and
    the queue is full of old heartbeats; a host is down only when somebody has listened for as long as it was silent.
    """
    return 0 < message.sequence <= host.heartbeat_sequence


def _put_aside(host: Host, message: HostReported) -> None:
    """Do not take a late heartbeat; where the host is down, count on from it."""
    last = host.heartbeat_sequence
    if message.sequence == last:
        return  # delivered twice
    log.info("late heartbeat not taken", host=host.id, sequence=message.sequence, last=last, up=host.up)
    if not host.up:
        host.heartbeat_sequence = message.sequence


def warn_of_clocks(tx: Transaction, messages: Iterable[HostReported]) -> None:
    """Say so in the log where hosts' clocks differ from ours: one line for all of them, for it may be ours."""
    skews_s: dict[str, int] = {}
    for message in messages:
        try:
            skew_s = (datetime.fromisoformat(message.at) - tx.now).total_seconds()
        except (ValueError, TypeError):
            log.warning("heartbeat without a readable time", host=message.host, at=message.at[:40])
            continue
        if abs(skew_s) > tx.settings.controller.clock_skew_warn_s:
            skews_s[message.host] = round(skew_s)
    if skews_s:
        host = max(skews_s, key=lambda h: abs(skews_s[h]))
        log.warning(
            "a host's clock differs from ours, or its heartbeat was late",
            host=host,
            seconds=skews_s[host],
            hosts=len(skews_s),
        )


def _renew(tx: Transaction, host: Host, message: HostReported) -> None:
    """The row after a heartbeat; when it came, and its number, only where something else changes too."""
    before = _registered(host)
    host.up = True
    set_facts(tx, host, message)
    catch_up(host, message)
    host.remarks = remarks_text(message)
    host.drift = drift(host.drift, before, _registered(host), _notes(host, message))
    if tx.session.is_modified(host):
        host.last_seen_at, host.heartbeat_sequence = tx.now, message.sequence


def _seen(tx: Transaction, heard: Sequence[tuple[Host, int]]) -> None:
    """These hosts were heard of, each with this number; one statement, whatever the engine."""
    numbers = {host.id: literal(sequence, Host.heartbeat_sequence.type) for host, sequence in heard}
    for ids in chunks(list(numbers)):
        sequence = case({host_id: numbers[host_id] for host_id in ids}, value=Host.id)
        tx.session.execute(
            update(Host)
            .where(among(Host.id, ids))
            .values(last_seen_at=tx.now, heartbeat_sequence=sequence)
            .execution_options(synchronize_session=False)
        )
    for host, number in heard:
        set_committed_value(host, "last_seen_at", tx.now)
        set_committed_value(host, "heartbeat_sequence", number)


def _registered(host: Host) -> dict[str, str]:
    return {fact.name: str(getattr(host, fact.name)) for fact in DRIFTING}


def _notes(host: Host, message: HostReported) -> list[str]:
    """What is wrong with the host now."""
    notes = []
    if message.probe_error not in ("", PROBE_PENDING):
        notes.append(f"MAC probe: {one_line(message.probe_error[:200]).replace(';', ',')}")
    for capacity in CAPACITIES:
        used, limit = getattr(host, capacity.used), getattr(host, capacity.limit)
        if used > limit:
            notes.append(f"{used} {capacity.unit} are claimed, {limit} may be")
    return notes


def _is_open(tx: Transaction) -> bool:
    setting = tx.settings.controller.open_registration
    return tx.settings.embedded_bus if setting == "auto" else setting == "true"


@lru_cache(maxsize=1000)
def _log_stranger(host_id: str) -> None:
    """Once for each of them, as long as there are not too many."""
    log.warning("heartbeat of a host that has not joined", host=host_id)
