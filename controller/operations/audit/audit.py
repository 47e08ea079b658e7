"""All checks, run on one snapshot, so that work in flight is never taken for a breach."""

from sqlalchemy import text
from sqlalchemy.orm import Session

from controller.operations.audit import (
    constraints,
    hosts,
    instances,
    leases,
    networks,
    observed_state,
    on_hosts,
    on_network,
    placement,
    quotas,
    wrong_hosts,
)
from controller.operations.audit.observed_state import EvidenceCheck, ObservedState
from controller.operations.audit.violation import Check, Violation
from controller.operations.cloud import Transaction

CHECKS: tuple[Check, ...] = (
    *instances.CHECKS,
    *constraints.CHECKS,
    *hosts.CHECKS,
    *networks.CHECKS,
    *leases.CHECKS,
    *placement.CHECKS,
    *quotas.CHECKS,
)
OBSERVED_STATE_CHECKS: tuple[EvidenceCheck, ...] = (*observed_state.CHECKS, *on_hosts.CHECKS, *on_network.CHECKS)


def audit(tx: Transaction, seen: ObservedState | None = None) -> list[Violation]:
    """Every breach, by promise. To be the first that is done in its transaction; takes no lock.

    Without evidence only the rows are looked at. What it proves may be work in flight: see ``Violation.proof``.
    """
    _take_snapshot(tx.session)
    found = [violation for check in CHECKS for violation in check(tx)]
    found += [violation for look in wrong_hosts.CHECKS for violation in look(tx, seen or ObservedState())]
    if seen is not None:
        found += [violation for look in OBSERVED_STATE_CHECKS for violation in look(tx, seen)]
    return sorted(found, key=lambda b: (b.promise, b.subject, b.what))


def _take_snapshot(session: Session) -> None:
    """All statements see one moment. SQLite's transactions always do."""
    if session.get_bind().dialect.name != "sqlite":
        session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
