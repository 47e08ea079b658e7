"""Mends what is safe to mend. Whatever it does, a guest that a row owns on its host is never stopped by it."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import timedelta

import structlog
from sqlalchemy import func, select

from controller.db.bulk import among
from controller.db.models import Claim, Host, Instance, Project, RemovedHost
from controller.domain.errors import BusUnavailable, PoisonMessage
from controller.domain.guests import Desired, Power
from controller.domain.host_facts import CAPACITIES
from controller.domain.messages import (
    GuestReport,
    GuestsChanged,
    GuestSpec,
    ReconcileGuests,
    ReconcileNetworks,
    RemoveTaps,
)
from controller.domain.states import UNCOUNTED, Event
from controller.operations.audit.violation import Remedy, Repair, Violation
from controller.operations.cloud import Cloud, Transaction
from controller.operations.instances import sweeps
from controller.operations.instances.generations import remember
from controller.operations.instances.locking import chunks
from controller.operations.instances.reports import apply_reports

log = structlog.get_logger(__name__)

# More guests and disks without a row than this look like a database that was restored from an old copy.
MOST_REMOVALS = 20
_EVENT_OF = {Power.RUNNING: Event.RUNNING, Power.SHUT_OFF: Event.SHUT_OFF}


def repair(
    cloud: Cloud, violations: Iterable[Violation], timeout_s: float, most_removals: int = MOST_REMOVALS
) -> list[str]:
    """Do what the breaches' remedies say; whether it helped, the next look tells. Answers with what it refused to do.

    Raises:
        DatabaseUnavailable
    """
    by_repair: dict[Repair, list[Remedy]] = defaultdict(list)
    for violation in violations:
        if violation.remedy is not None:
            by_repair[violation.remedy.mend].append(violation.remedy)
            log.warning("audit mends", subject=violation.subject, what=violation.what, mend=violation.remedy.mend.value)
    if remedies := by_repair[Repair.RECOUNT_HOST]:
        cloud.write(lambda tx: recount_hosts(tx, {r.subject for r in remedies}))
    if projects := by_repair[Repair.RECOUNT_PROJECT]:
        cloud.write(lambda tx: recount_projects(tx, {r.subject for r in projects}))
    refused = _sweep(cloud) if by_repair[Repair.SWEEP] else []
    if powers := by_repair[Repair.TAKE_POWER]:
        cloud.write(lambda tx: apply_reports(tx, _reports(powers)))
    refused += _remove_guests(cloud, by_repair[Repair.REMOVE_GUEST], most_removals)
    refused += _remove_taps(cloud, by_repair[Repair.REMOVE_TAP], timeout_s)
    if by_repair[Repair.REWIRE]:
        try:
            cloud.bus.call(ReconcileNetworks(), timeout_s)
        except (BusUnavailable, TimeoutError, PoisonMessage) as error:
            refused.append(f"the networks were not mended: {error or 'no answer'}")
    return refused


def recount_hosts(tx: Transaction, host_ids: Iterable[str]) -> None:
    """Set the hosts' counters to the sums of their claims, while claims go on.

    With the row locked, whoever has changed a counter has committed, claims and all; whoever has not yet will change
    it by what they add or take, not to what they believe it is.
    """
    locked = select(Host).where(among(Host.id, sorted(host_ids))).order_by(Host.id).with_for_update()
    for host in tx.session.scalars(locked.execution_options(populate_existing=True)).all():
        sums = (func.coalesce(func.sum(getattr(Claim, c.name)), 0) for c in CAPACITIES)
        counted = tx.session.execute(select(*sums).where(Claim.host_id == host.id)).one()
        for capacity, claimed in zip(CAPACITIES, counted, strict=True):
            setattr(host, capacity.used, int(claimed))


def recount_projects(tx: Transaction, project_ids: Iterable[str]) -> None:
    """Set the projects' counters to what counts of their instances; as ``recount_hosts``."""
    locked = select(Project).where(among(Project.id, sorted(project_ids))).order_by(Project.id).with_for_update()
    for project in tx.session.scalars(locked.execution_options(populate_existing=True)).all():
        sums = (func.coalesce(func.sum(c), 0) for c in (Instance.vcpus, Instance.memory_mib))
        counting = (Instance.project_id == project.id, Instance.state.not_in(list(UNCOUNTED)))
        counted = tx.session.execute(select(func.count(), *sums).where(*counting)).one()
        project.used_instances, project.used_vcpus, project.used_memory_mib = map(int, counted)


def _sweep(cloud: Cloud) -> list[str]:
    """As the controller's own sweep; as many rounds as there is work, within reason."""
    if error_s := cloud.clock_error_s():
        return [f"nothing overdue was ended: the clock here and the database's differ by {abs(error_s):.0f} s"]
    for _ in range(100):
        if cloud.write(sweeps.expire) < sweeps.BATCH:
            break
    return []


def _reports(remedies: Iterable[Remedy]) -> list[GuestsChanged]:
    return [
        GuestsChanged(
            r.host,
            (GuestReport(r.subject, r.generation, _EVENT_OF[r.power or Power.SHUT_OFF], "seen by the audit"),),
        )
        for r in remedies
    ]


def _remove_guests(cloud: Cloud, remedies: Sequence[Remedy], most: int) -> list[str]:
    if not remedies:
        return []
    ids = {r.subject for r in remedies}
    ownerless = ids - cloud.read(lambda tx: _known(tx, sorted(ids)))
    if len(ownerless) > most:
        return [
            f"nothing was removed: {len(ownerless)} guests or disks have no row, more than --most-removals {most}: "
            "was the database restored from an old copy?"
        ]
    owned = cloud.read(lambda tx: _owned(tx, sorted(ids)))  # once more, and last
    by_host: dict[str, dict[str, GuestSpec]] = defaultdict(dict)
    for r in remedies:
        if (r.subject, r.host) not in owned:
            by_host[r.host][r.subject] = _absent(r)
    cloud.write(lambda tx: remember(tx, {i: s.generation for specs in by_host.values() for i, s in specs.items()}))
    epochs, until = cloud.read(lambda tx: _epochs(tx, sorted(by_host)))
    commands = [
        ReconcileGuests(host, tuple(specs.values()), epochs[host], until)
        for host, specs in sorted(by_host.items())
        if host in epochs
    ]
    try:
        cloud.bus.send_all(commands)
    except BusUnavailable as error:
        return [f"guests were not removed: {error}"]
    return []


def _known(tx: Transaction, ids: Sequence[str]) -> set[str]:
    found = (tx.session.scalars(select(Instance.id).where(among(Instance.id, chunk))) for chunk in chunks(ids))
    return {i for rows in found for i in rows}


def _owned(tx: Transaction, ids: Sequence[str]) -> set[tuple[str, str | None]]:
    query = select(Instance.id, Instance.host_id)
    found = (tx.session.execute(query.where(among(Instance.id, chunk))) for chunk in chunks(ids))
    return {pair for rows in found for pair in rows}


def _epochs(tx: Transaction, host_ids: Sequence[str]) -> tuple[dict[str, int], str]:
    """The epochs of these hosts, and until when a command sent now may be carried out."""
    found: dict[str, int] = {}
    for chunk in chunks(host_ids):
        for table in (RemovedHost, Host):  # one that has joined again is in both
            rows = tx.session.execute(select(table.id, table.epoch).where(among(table.id, chunk)))
            found.update((row.id, row.epoch) for row in rows)
    return found, (tx.now + timedelta(seconds=tx.settings.controller.command_expires_s)).isoformat()


def _absent(remedy: Remedy) -> GuestSpec:
    return GuestSpec(
        instance_id=remedy.subject,
        generation=remedy.generation,
        desired=Desired.ABSENT,
        project_id="",
        name=remedy.subject,
        vcpus=0,
        memory_mib=0,
        disk_gib=0,
    )


def _remove_taps(cloud: Cloud, remedies: Iterable[Remedy], timeout_s: float) -> list[str]:
    by_host: dict[str, list[str]] = defaultdict(list)
    for r in remedies:
        by_host[r.host].append(r.subject)
    refused = []
    for host, names in sorted(by_host.items()):
        try:
            cloud.bus.call(RemoveTaps(host, tuple(names)), timeout_s)
        except (BusUnavailable, TimeoutError, PoisonMessage) as error:
            refused.append(f"interfaces of {host} were not removed: {error or 'no answer'}")
    return refused
