"""Promise 3: what a host has promised is the sum of its claims, within its limits, one claim for each instance."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Executable, and_, func, not_, or_, select

from controller.db.models import Claim, Host, Instance
from controller.domain.host_facts import CAPACITIES
from controller.domain.states import MAYBE_PLACED, PLACED
from controller.operations.audit.violation import KNOWN, Remedy, Repair, Violation
from controller.operations.cloud import Transaction

_RECOUNT = "`pileus audit --repair` sets the counters to the sum of the claims"


def counters(tx: Transaction) -> list[Violation]:
    """A host's counters are the sums of the claims on it, and not above what may be promised of it."""
    claims = (
        select(
            Claim.host_id,
            *(func.sum(getattr(Claim, c.name)).label(c.name) for c in CAPACITIES),
        )
        .group_by(Claim.host_id)
        .subquery()
    )
    sums = [func.coalesce(claims.c[c.name], 0) for c in CAPACITIES]
    used = [getattr(Host, c.used) for c in CAPACITIES]
    limits = [getattr(Host, c.limit) for c in CAPACITIES]
    wrong = [u != s for u, s in zip(used, sums, strict=True)] + [
        u > limit for u, limit in zip(used, limits, strict=True)
    ]
    rows = tx.session.execute(
        select(Host.id, *used, *sums, *limits).outerjoin(claims, claims.c.host_id == Host.id).where(or_(*wrong))
    )
    return [violation for row in rows for violation in _counters(row)]


def _counters(row: Sequence[Any]) -> list[Violation]:
    host, *numbers = row
    found = []
    for n, capacity in enumerate(CAPACITIES):
        used, claimed, limit = map(int, numbers[n :: len(CAPACITIES)])
        subject = f"host {host}"
        if used != claimed:
            found.append(
                Violation(
                    3,
                    f"it counts {used} {capacity.unit} as used, its claims add up to {claimed}",
                    subject,
                    _RECOUNT,
                    Remedy(Repair.RECOUNT_HOST, subject=host),
                )
            )
        if used > limit:
            advice = "it has shrunk, or a ratio was lowered: `pileus host drain`, move instances away, or give it more"
            found.append(
                Violation(3, f"{used} {capacity.unit} are promised of it, the limit is {limit}", subject, advice)
            )
    return found


def claims(tx: Transaction) -> list[Violation]:
    """An instance that is on a host has one claim there, of its own size; any other has none."""
    placed = Instance.state.in_(PLACED)
    may_have = Instance.state.in_((*PLACED, *MAYBE_PLACED))
    return [
        *_each(
            tx,
            select(Instance.id, Instance.state).where(placed, Instance.host_id.is_(None)),
            "it is {} and on no host",
            "terminate it",
        ),
        *_each(
            tx,
            select(Instance.id, Instance.state, Instance.host_id)
            .outerjoin(Claim, and_(Claim.instance_id == Instance.id, Claim.host_id == Instance.host_id))
            .where(Instance.host_id.is_not(None), may_have, Claim.instance_id.is_(None)),
            "it is {} on {} without a claim there",
            "the host may be promised twice: disable the host, terminate the instance",
        ),
        *_each(
            tx,
            select(Claim.instance_id, Claim.host_id, Instance.state, Instance.host_id)
            .outerjoin(Instance, Instance.id == Claim.instance_id)
            .where(
                or_(
                    Instance.host_id.is_(None),
                    Instance.host_id != Claim.host_id,
                    and_(not_(may_have), Instance.state.in_(KNOWN)),
                )
            ),
            "it has a claim on {}, but is {} on {}",
            f"nothing uses the claim: delete the row; {_RECOUNT}",
        ),
        *_each(
            tx,
            select(Instance.id, Claim.host_id)
            .join(Claim, and_(Claim.instance_id == Instance.id, Claim.host_id == Instance.host_id))
            .where(
                or_(
                    Claim.vcpus != Instance.vcpus,
                    Claim.memory_mib - Claim.overhead_mib != Instance.memory_mib,
                    Claim.disk_gib != Instance.disk_gib,
                )
            ),
            "its claim on {} is not of its size",
            "terminate and launch it again",
        ),
    ]


def _each(tx: Transaction, rows: Executable, what: str, advice: str) -> Sequence[Violation]:
    """A breach for each row: the subject, then what fills the text."""
    return [
        Violation(3, what.format(*(v or "none" for v in values)), subject, advice)
        for subject, *values in tx.session.execute(rows)
    ]


CHECKS = (counters, claims)
