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
from controller.operations.audit.observed_state import Evidence, EvidenceCheck
from controller.operations.audit.violation import Breach, Check
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
EVIDENCE_CHECKS: tuple[EvidenceCheck, ...] = (*observed_state.CHECKS, *on_hosts.CHECKS, *on_network.CHECKS)


def audit(tx: Transaction, seen: Evidence | None = None) -> list[Breach]:
    """Every breach, by promise. To be the first that is done in its transaction; takes no lock.

    Without evidence only the rows are looked at. What it proves may be work in flight: see ``Breach.proof``.
    """
    _take_snapshot(tx.session)
    found = [breach for check in CHECKS for breach in check(tx)]
    found += [breach for look in wrong_hosts.CHECKS for breach in look(tx, seen or Evidence())]
    if seen is not None:
        found += [breach for look in EVIDENCE_CHECKS for breach in look(tx, seen)]
    return sorted(found, key=lambda b: (b.promise, b.subject, b.what))


def _take_snapshot(session: Session) -> None:
    """All statements see one moment. SQLite's transactions always do."""
    if session.get_bind().dialect.name != "sqlite":
        session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
