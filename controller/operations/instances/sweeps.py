"""Sweeps: notify services again of rows that wait, end those that are overdue, purge old ones."""

from datetime import timedelta

from sqlalchemy import delete, func, or_, select

from controller.db.bulk import among
from controller.db.models import Instance, Reservation
from controller.domain.reasons import ReasonCode
from controller.domain.states import TRAITS, Event, State
from controller.operations.accounts import tags
from controller.operations.cloud import Transaction
from controller.operations.hosts import stray_guests
from controller.operations.instances.locking import LockedInstance, lock_instances
from controller.operations.instances.transitions import doorbells, notify_later, transition

# How many rows one sweep changes at most; the next one takes the rest.
BATCH = 500
# Instances in a state that only a newer release knows are left to its services.
_KNOWN = list(State)


def expire(tx: Transaction) -> int:
    """Raise EXPIRED for instances whose deadline is over. Answers how many."""
    overdue = tx.session.scalars(
        select(Instance.id)
        .where(Instance.deadline_at <= tx.now, Instance.state.in_(_KNOWN))
        .order_by(Instance.deadline_at)
        .limit(BATCH)
    ).all()
    instances = [i for i in lock_instances(tx, overdue) if i.deadline_at and i.deadline_at <= tx.now and i.state.known]
    by_state: dict[State, list[LockedInstance]] = {}
    for instance in instances:
        by_state.setdefault(instance.state, []).append(instance)
    for state, of_state in by_state.items():
        reason = f"{TRAITS[state].overdue} ({state})"
        transition(tx, of_state, Event.EXPIRED, detail=reason, reason_code=ReasonCode.TIMED_OUT)
    return len(instances)


def notify(tx: Transaction, *, busy: bool = False, most: int = BATCH) -> int:
    """Notify services again of instances that have waited long enough, at most ``most``; the pause doubles each time.
    Answers how many.

    While hosts are ``busy`` answering, what waits is probably still in the queues, and more messages would only make
    these longer: then it waits ``[controller] ring_max_s`` longer. A time further ahead than the longest pause was
    written before a clock stepped back: that instance has waited long enough.
    """
    conf = tx.settings.controller
    never = tx.now + timedelta(seconds=2 * max(conf.ring_after_s, conf.ring_max_s))
    before = tx.now - timedelta(seconds=conf.ring_max_s if busy else 0)
    is_due = or_(Instance.ring_at <= before, Instance.ring_at > never)
    due = tx.session.scalars(
        select(Instance.id).where(is_due, Instance.state.in_(_KNOWN)).order_by(Instance.ring_at).limit(most)
    ).all()
    instances = [i for i in lock_instances(tx, due) if i.ring_at and not before < i.ring_at <= never and i.state.known]
    notify_later(tx, instances)
    tx.outbox += doorbells(tx, instances)
    return len(instances)


def purge(tx: Transaction) -> int:
    """Remove rows of instances that were deleted long ago, and of old strays. Answers how many instances."""
    stray_guests.purge(tx)
    before = tx.now - timedelta(seconds=tx.settings.controller.purge_deleted_after_s)
    old = tx.session.scalars(
        select(Instance.id).where(Instance.deleted_at <= before).order_by(Instance.deleted_at).limit(BATCH)
    ).all()
    if not old:
        return 0
    reservations = tx.session.scalars(select(Instance.reservation_id).where(among(Instance.id, old)).distinct()).all()
    tags.forget(tx, old)
    tx.session.execute(delete(Instance).where(among(Instance.id, old)))
    left = select(func.count()).where(Instance.reservation_id == Reservation.id).scalar_subquery()
    tx.session.execute(
        delete(Reservation)
        .where(among(Reservation.id, reservations), left == 0)
        .execution_options(synchronize_session=False)
    )
    return len(old)
