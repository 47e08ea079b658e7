"""Promises 1, 2 and 5, as far as rows tell: requests end in time, a token means one thing, silence is seen."""

from datetime import datetime, timedelta

from sqlalchemy import and_, func, or_, select

from controller.db.models import Host, Instance, Reservation
from controller.domain.states import DEADLINE_S, DELETED_BY_OWNER, State
from controller.operations.audit.violation import GRACE_S, Remedy, Repair, Violation
from controller.operations.cloud import Transaction

# A delete that is overdue has no deadline any more.
_BOUNDED = [state for state in DEADLINE_S if state not in DELETED_BY_OWNER]


def overdue(tx: Transaction) -> list[Violation]:
    """Nothing waits for longer than its state's deadline, or without one."""
    before = tx.now - timedelta(seconds=GRACE_S + 10 * tx.settings.controller.sweep_s)
    rows = tx.session.execute(
        select(Instance.id, Instance.state, Instance.deadline_at, Instance.state_since).where(
            or_(
                and_(Instance.deadline_at < before, Instance.state.in_(list(State))),
                and_(Instance.state.in_(_BOUNDED), Instance.deadline_at.is_(None)),
            )
        )
    )
    return [_overdue(tx.now, *row) for row in rows]


def _overdue(now: datetime, instance_id: str, state: str, deadline_at: datetime | None, since: datetime) -> Violation:
    if deadline_at is None:
        what = f"{state} since {since:%FT%TZ} and nothing says until when"
    else:
        what = f"{state} {_seconds(now - deadline_at)} s after its deadline"
    advice = "is a controller running that reaches the database? its sweep ends what is overdue"
    if deadline_at is None:
        advice = "no sweep will end it: terminate it"
    return Violation(1, what, instance_id, advice, None if deadline_at is None else Remedy(Repair.SWEEP))


def overdue_deletes(tx: Transaction) -> list[Violation]:
    """An accepted delete ends in time. One that does not waits for its host; the quota is given back already."""
    before = tx.now - timedelta(seconds=DEADLINE_S[State.DELETING] + GRACE_S)
    query = select(Instance.id, Instance.state_since, Instance.host_id, Host.up)
    rows = tx.session.execute(
        query.outerjoin(Host, Host.id == Instance.host_id)
        .where(Instance.state == State.DELETING, Instance.deadline_at.is_(None), Instance.state_since < before)
        .order_by(Instance.id)
    )
    return [
        Violation(
            1,
            f"DELETING for {_seconds(tx.now - since)} s: {host} has not said that it is gone, and is "
            + ("up" if up else "down"),
            instance_id,
            "its history says why: `pileus instance explain`"
            if up
            else f"it goes when {host} is back; if that will never be: `pileus host remove --force {host}`",
        )
        for instance_id, since, host, up in rows
    ]


def errors_without_reason(tx: Transaction) -> list[Violation]:
    """ERROR says why."""
    silent = tx.session.scalars(select(Instance.id).where(Instance.state == State.ERROR, Instance.reason == ""))
    advice = "`pileus instance explain` shows its history; terminate it"
    return [Violation(1, "it is in ERROR and nothing says why", i, advice) for i in silent]


def unknown_states(tx: Transaction) -> list[Violation]:
    """Every state is one of the table's."""
    rows = tx.session.execute(select(Instance.id, Instance.state).where(Instance.state.not_in(list(State))))
    advice = "a newer release wrote it: run one release everywhere"
    return [Violation(1, f"its state {state!r} is not in the table", i, advice) for i, state in rows]


def doubled_tokens(tx: Transaction) -> list[Violation]:
    """One client token, one reservation; one launch index, one instance."""
    tokens = tx.session.execute(
        select(Reservation.project_id, Reservation.client_token, func.count())
        .where(Reservation.client_token.is_not(None))
        .group_by(Reservation.project_id, Reservation.client_token)
        .having(func.count() > 1)
    )
    advice = "the UNIQUE constraint is gone: terminate the later ones, then restore it"
    found = [
        Violation(2, f"client token {token!r} has {count} reservations", f"project {project}", advice)
        for project, token, count in tokens
    ]
    indexes = tx.session.execute(
        select(Instance.reservation_id, Instance.launch_index, func.count())
        .group_by(Instance.reservation_id, Instance.launch_index)
        .having(func.count() > 1)
    )
    return found + [
        Violation(2, f"{count} instances have launch index {index}", reservation, "terminate the later ones")
        for reservation, index, count in indexes
    ]


def active_out_of_contact(tx: Transaction) -> list[Violation]:
    """What runs on a host that was not heard of for long is UNKNOWN, not ACTIVE."""
    silence_s = 2 * tx.settings.controller.host_down_after_s + GRACE_S
    rows = tx.session.execute(
        select(Host.id, Host.up, Host.last_seen_at, func.count())
        .join(Instance, Instance.host_id == Host.id)
        .where(Instance.state == State.ACTIVE, Host.last_seen_at < tx.now - timedelta(seconds=silence_s))
        .group_by(Host.id, Host.up, Host.last_seen_at)
    )
    return [
        Violation(
            5,
            f"{count} instances are ACTIVE on it, but its last heartbeat came {_seconds(tx.now - seen)} s ago"
            + ("" if up else " and it is down"),
            f"host {host}",
            "is a controller running that reaches database and broker? it marks such hosts down"
            if up
            else "nobody knows whether they run: look after the host, its next heartbeat puts it right",
        )
        for host, up, seen, count in rows
    ]


def _seconds(span: timedelta) -> int:
    return int(span.total_seconds())


CHECKS = (overdue, overdue_deletes, errors_without_reason, unknown_states, doubled_tokens, active_out_of_contact)
