"""Promise 5 by what heartbeats have shown: guests on hosts that are not theirs, where no agent was asked just now."""

from collections.abc import Iterator
from datetime import timedelta

from sqlalchemy import or_, select

from controller.db.models import Host, Instance, RemovedHost, StrayGuest
from controller.operations.audit.observed_state import EvidenceCheck, ObservedState
from controller.operations.audit.violation import GRACE_S, Remedy, Repair, Violation
from controller.operations.cloud import Transaction
from controller.operations.hosts import stray_guests


def held(tx: Transaction, observed: ObservedState) -> list[Violation]:
    """A guest that its host shows for long though it is not its own. Hosts that told what they have are left to
    ``on_hosts``; one that was removed counts once it was heard of since, unless it was said to be dead after that."""
    removed = select(RemovedHost.id).where(
        RemovedHost.last_seen_at.is_not(None),
        or_(RemovedHost.fenced_at.is_(None), RemovedHost.fenced_at < RemovedHost.last_seen_at),
    )
    registered = set(tx.session.scalars(select(Host.id)))
    hosts = registered | set(tx.session.scalars(removed))
    seen = [
        s
        for s in stray_guests.held_strays(tx)
        if s.host_id in hosts - observed.hosts.keys() and s.first_seen_at < tx.now - timedelta(seconds=GRACE_S)
    ]
    return [_violation(tx, s, i, s.host_id in registered) for s, i in _with_instances(tx, seen)]


def _with_instances(tx: Transaction, strays: list[StrayGuest]) -> Iterator[tuple[StrayGuest, Instance]]:
    rows = stray_guests.read_instances(tx, {s.instance_id for s in strays})
    for stray in strays:
        if stray.instance_id in rows:
            yield stray, rows[stray.instance_id]


def _violation(tx: Transaction, stray: StrayGuest, instance: Instance, registered: bool) -> Violation:
    host = stray.host_id if registered else f"{stray.host_id}, which was removed,"
    what = f"{host} shows a guest of it ({stray.power.lower().replace('_', ' ')}); {stray.reason}"
    if stray_guests.why_left_alone(tx, stray, instance):
        advice = (
            f"look at both hosts (`pileus host show {stray.host_id}`), then `virsh destroy` the one that is too much"
        )
        return Violation(5, what, stray.instance_id, advice)
    generation = max(instance.generation, stray.generation + 1)
    remedy = Remedy(Repair.REMOVE_GUEST, stray.host_id, stray.instance_id, generation)
    advice = "`pileus audit --repair` removes it, its disk is kept"
    if not registered:
        advice += f"; or stop the machine and say `pileus host fence {stray.host_id}`"
    return Violation(5, what, stray.instance_id, advice, remedy)


CHECKS: tuple[EvidenceCheck, ...] = (held,)
