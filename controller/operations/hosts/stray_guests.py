"""Stray guests: a host shows them, but their rows place them on another host, or on none.

- Deleted by its owner: removed now, with its disk.
- Its host was force-removed, or its failed build was cleaned up: removed after it was seen twice.
- Its instance is on another host: removed while that host, another machine, shows it running.
- Without a row: left to the audit, unless its address is in quarantine because of this host. A database that was
  restored from yesterday's backup must not remove today's guests.

The number of removals is limited for each heartbeat and hour; further guests are held. All but the first kind keep
their disks; an agent that cannot keep a disk gets no such removal. `pileus host show` lists all strays with their
reasons.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from datetime import datetime, timedelta

import structlog
from sqlalchemy import delete, exists, func, or_, select

from controller.db.bulk import among
from controller.db.models import Cloud, Host, Instance, Lease, StrayGuest
from controller.domain.checks import storable
from controller.domain.guests import Desired, Power
from controller.domain.messages import GuestSpec, GuestState, HostReported, ReconcileGuests
from controller.domain.states import DELETED_BY_OWNER, DESIRED, State
from controller.operations.cloud import Transaction
from controller.operations.hosts.fencing import Heard
from controller.operations.hosts.lateness import lateness
from controller.operations.instances.generations import remember
from controller.operations.instances.locking import chunks

log = structlog.get_logger(__name__)

_SIGHTINGS_NEEDED = 2
_MOST_STRAYS = 2000
_AGAIN_S = 60  # until a removal without effect is sent again
_HOUR = timedelta(hours=1)
_FORGOTTEN_AFTER = timedelta(days=7)
_MOST_SEEN = 1000
_POWER_CHARS = 16  # a word of a newer release may be longer
# Agents that read an older version of the messages remove the disk with the guest.
_KEEPS_DISKS_SINCE = 2


def look_at(tx: Transaction, heard: Sequence[Heard], carried: Mapping[str, Mapping[str, object]]) -> None:
    """Record the guests in these heartbeats that are not ``carried`` by their hosts, and remove those that may go."""
    shown = {h.message.host: {g.instance_id: g for g in h.message.guests} for h in heard}
    strange = {h.message.host: strangers(h.message, carried.get(h.message.host, {})) for h in heard}
    known = {(s.host_id, s.instance_id): s for s in _known(tx, shown)}
    written = {h.message.host: tx.now - lateness(tx, h.message) for h in heard}
    for stray in known.values():
        _look(tx, stray, shown, strange, written)
    rows = read_instances(tx, {i for guests in strange.values() for i in guests})
    for h in heard:
        host = h.message.host
        if h.epoch and strange[host]:
            found = rows | _force_removed(tx, host, strange[host].keys() - rows.keys())
            _decide(tx, h, [(found[i], g) for i, g in strange[host].items() if i in found], known)


def strangers(message: HostReported, own: Container[str]) -> dict[str, GuestState]:
    """The guests that a host shows and that are not its ``own``. Of very many only the first by their ids, so that one
    host does not delay others: the next ones follow when these are gone."""
    found = {g.instance_id: g for g in message.guests if g.instance_id not in own}
    return {i: found[i] for i in sorted(found)[:_MOST_STRAYS]}


def list_strays(tx: Transaction, host_id: str) -> Sequence[StrayGuest]:
    """The strays on this host, for ``pileus host show``."""
    query = select(StrayGuest).where(StrayGuest.host_id == host_id, StrayGuest.times_seen > 0)
    return tx.session.scalars(query.order_by(StrayGuest.instance_id)).all()


def held_strays(tx: Transaction) -> Sequence[StrayGuest]:
    """All strays that were seen often enough to be removed, and were not."""
    query = select(StrayGuest).where(StrayGuest.times_seen >= _SIGHTINGS_NEEDED)
    return tx.session.scalars(query.order_by(StrayGuest.host_id, StrayGuest.instance_id)).all()


def read_instances(tx: Transaction, ids: Iterable[str]) -> dict[str, Instance]:
    """The rows of these instances, without those in a state of a newer release."""
    found: dict[str, Instance] = {}
    for chunk in chunks(sorted(ids)):
        query = select(Instance).where(among(Instance.id, chunk), Instance.state.in_(list(State)))
        found |= {i.id: i for i in tx.session.scalars(query)}
    return found


def why_left_alone(tx: Transaction, stray: StrayGuest, instance: Instance) -> str:
    """Why this may be the only guest of its instance; empty: it may be removed."""
    if instance.host_id is None and DESIRED.get(State(instance.state)) is not Desired.ABSENT:
        return f"left alone: its instance is {instance.state} and on no host"
    if instance.host_id is not None and not _owner_shows_it(tx, stray):
        return f"left alone: its instance is {instance.state} on {instance.host_id}, which does not show it running"
    return ""


def purge(tx: Transaction) -> None:
    """Delete the rows of removals older than an hour, and of strays on hosts that have been silent for a week."""
    over = (StrayGuest.times_seen == 0) & (StrayGuest.removal_sent_at < tx.now - _HOUR)
    tx.session.execute(
        delete(StrayGuest)
        .where(or_(over, StrayGuest.first_seen_at < tx.now - _FORGOTTEN_AFTER))
        .execution_options(synchronize_session=False)
    )


def _known(tx: Transaction, hosts: Iterable[str]) -> list[StrayGuest]:
    found: list[StrayGuest] = []
    for chunk in chunks(sorted(hosts)):
        query = select(StrayGuest).where(or_(among(StrayGuest.host_id, chunk), among(StrayGuest.owner_host, chunk)))
        found += tx.session.scalars(query.order_by(StrayGuest.host_id, StrayGuest.instance_id).with_for_update())
    return found


def _force_removed(tx: Transaction, host: str, ids: Iterable[str]) -> dict[str, Instance]:
    """Instances without a row that were force-removed with this host, as their addresses in quarantine show. They count
    as failed."""
    found: dict[str, Instance] = {}
    for chunk in chunks(sorted(ids)):
        query = select(Lease.quarantine_instance)
        query = query.where(Lease.quarantine_host == host, among(Lease.quarantine_instance, chunk))
        for instance_id in tx.session.scalars(query.where(~exists().where(Instance.id == Lease.quarantine_instance))):
            nothing = {"project_id": "", "vcpus": 0, "memory_mib": 0, "disk_gib": 0}
            found[instance_id or ""] = Instance(id=instance_id, state=State.ERROR, generation=0, **nothing)
    return found


def _look(
    tx: Transaction,
    stray: StrayGuest,
    shown: Mapping[str, Mapping[str, GuestState]],
    strange: Mapping[str, Mapping[str, GuestState]],
    written: Mapping[str, datetime],
) -> None:
    """Update a stray by the heartbeats of its host and of its owner. What the owner showed before the stray was first
    seen may be the same guest, if the machine had another name then and was booted since."""
    if stray.owner_host is not None and stray.owner_host in shown:
        guest = shown[stray.owner_host].get(stray.instance_id)
        if guest is None or guest.power is not Power.RUNNING:
            stray.owner_seen_at = None
        elif written[stray.owner_host] >= stray.first_seen_at:
            stray.owner_seen_at = tx.now
    if stray.host_id in shown and stray.instance_id not in strange[stray.host_id]:
        if stray.removal_sent_at is not None and stray.removal_sent_at > tx.now - _HOUR:
            stray.times_seen = 0  # its removal counts for an hour
        else:
            tx.session.delete(stray)


def _decide(
    tx: Transaction,
    heard: Heard,
    guests: Sequence[tuple[Instance, GuestState]],
    known: Mapping[tuple[str, str], StrayGuest],
) -> None:
    host = heard.message.host
    same_machine = _same_machine(tx, heard, {i.host_id for i, _ in guests if i.host_id is not None})
    deleted = [(i, g) for i, g in guests if i.state in DELETED_BY_OWNER and i.host_id is None]
    going = [_absent(i, g, keep_disk=False) for i, g in deleted]
    candidates = []
    for instance, guest in guests:
        if instance.state in DELETED_BY_OWNER and instance.host_id is None:
            continue
        stray = known.get((host, instance.id)) or _new(tx, host, instance.id)
        reason = _seen(tx, stray, instance, guest)
        if instance.host_id in same_machine:
            stray.owner_seen_at = None  # it shows this same guest
            reason = f"left alone: {instance.host_id} is this same machine, with the same boot id"
        elif heard.message.speaks < _KEEPS_DISKS_SINCE:
            reason = "left alone: its host's agent cannot keep the disk: upgrade it to 0.2 or newer"
        if reason:
            _hold(stray, reason)
        else:
            candidates.append((stray, instance, guest))
    again = timedelta(seconds=_AGAIN_S)
    fresh = [c for c in candidates if c[0].removal_sent_at is None]
    due = [c for c in candidates if c[0].removal_sent_at is not None and c[0].removal_sent_at <= tx.now - again]
    room = min(tx.settings.controller.stray_removals_per_heartbeat, _room(tx)) if fresh else 0
    for stray, _, _ in fresh[room:]:
        _hold(stray, "held: too many guests to remove at once or in this hour")
    for stray, instance, guest in [*due, *fresh[:room]]:
        stray.removal_sent_at = tx.now
        stray.reason = "its removal was sent, its disk will be kept"
        log.warning("a guest on the wrong host is removed, its disk is kept", host=host, instance=instance.id)
        going.append(_absent(instance, guest, keep_disk=True))
    if deleted:
        log.warning("guests of deleted instances are removed", host=host, count=len(deleted))
    if going:
        remember(tx, {spec.instance_id: spec.generation for spec in going})
        until = tx.now + timedelta(seconds=tx.settings.controller.command_expires_s)
        tx.outbox.append(ReconcileGuests(host, tuple(going), heard.epoch, until.isoformat()))


def _same_machine(tx: Transaction, heard: Heard, owners: Iterable[str]) -> set[str]:
    """Those of these hosts that are the same machine under another name: they show one guest, not two."""
    if not heard.message.boot_id:
        return set()
    found: set[str] = set()
    for chunk in chunks(sorted(owners)):
        query = select(Host.id).where(among(Host.id, chunk), Host.boot_id == heard.message.boot_id)
        found.update(tx.session.scalars(query))
    return found


def _new(tx: Transaction, host: str, instance_id: str) -> StrayGuest:
    stray = StrayGuest(host_id=host, instance_id=instance_id, times_seen=0, first_seen_at=tx.now, reason="")
    tx.session.add(stray)
    return stray


def _seen(tx: Transaction, stray: StrayGuest, instance: Instance, guest: GuestState) -> str:
    """Count one more sighting; answers why the guest is left alone, empty: it may be removed."""
    if not stray.times_seen:
        stray.first_seen_at, stray.owner_seen_at = tx.now, None
    stray.times_seen = min(stray.times_seen + 1, _MOST_SEEN)
    stray.power, stray.generation = storable(guest.power[:_POWER_CHARS]), guest.generation
    if stray.owner_host != instance.host_id:
        stray.owner_host, stray.owner_seen_at = instance.host_id, None
    if reason := why_left_alone(tx, stray, instance):
        return reason
    if stray.times_seen < _SIGHTINGS_NEEDED:
        return "to be removed: waits to be seen a second time"
    return ""


def _owner_shows_it(tx: Transaction, stray: StrayGuest) -> bool:
    recent = timedelta(seconds=tx.settings.controller.host_down_after_s)
    return stray.owner_seen_at is not None and abs(tx.now - stray.owner_seen_at) < recent


def _hold(stray: StrayGuest, reason: str) -> None:
    if stray.reason != reason:
        log.warning("a guest on the wrong host", host=stray.host_id, instance=stray.instance_id, reason=reason)
    stray.reason = reason


def _room(tx: Transaction) -> int:
    """How many guests may still be removed in this hour, in the whole cloud; locks the cloud's row."""
    tx.session.execute(select(Cloud.id).with_for_update())
    sent = select(func.count()).select_from(StrayGuest).where(StrayGuest.removal_sent_at > tx.now - _HOUR)
    return max(0, tx.settings.controller.stray_removals_per_hour - (tx.session.scalar(sent) or 0))


def _absent(instance: Instance, guest: GuestState, *, keep_disk: bool) -> GuestSpec:
    return GuestSpec(
        instance_id=instance.id,
        generation=max(instance.generation, guest.generation + 1),
        desired=Desired.ABSENT,
        project_id=instance.project_id,
        name=instance.id,
        vcpus=instance.vcpus,
        memory_mib=instance.memory_mib,
        disk_gib=instance.disk_gib,
        keep_disk=keep_disk,
    )
