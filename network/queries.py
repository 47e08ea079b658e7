"""What the network service reads of the database, and the one thing that it writes."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlalchemy import BigInteger, ColumnElement, case, cast, func, or_, select

from controller.db.bulk import among
from controller.db.models import Instance, InstanceEvent, Lease, Network
from controller.domain.messages import ReconcileGuests
from controller.operations.cloud import Transaction
from controller.operations.instances.guest_specs import reconcile_commands
from controller.operations.instances.locking import CHUNK, LockedInstance, read_instances
from controller.operations.networks import leases as lease_rows
from network.segment import MARK_MODULUS, HeldLease, LeaseMark, Segment

NETWORK_FAILED = "WIRING_FAILED"


@dataclass(frozen=True)
class NewLeases:
    """Some leases of a network, and the mark of all that it has now. ``quarantined``: some wait for DHCP."""

    leases: Sequence[HeldLease]
    mark: LeaseMark
    quarantined: bool = False


@dataclass(frozen=True)
class Rows:
    """All networks of the cloud, with all ``leases`` of some of them and only what is ``new`` in others.

    ``quarantined``: the addresses kept from the next holder as long as DHCP remembers the last one, the latest of
    them until ``quarantined_until``.
    """

    segments: Sequence[Segment]
    leases: Mapping[str, Sequence[HeldLease]]
    quarantined: Mapping[str, Sequence[str]] = field(default_factory=dict)
    quarantined_until: datetime | None = None
    new: Mapping[str, NewLeases] = field(default_factory=dict)


def rows(tx: Transaction, network_ids: Collection[str] | None = None) -> Rows:
    """What the host is to be made equal to; without ids, with the leases of all networks."""
    segments = _segments(tx)
    leases: dict[str, list[HeldLease]] = {
        s.network_id: [] for s in segments if network_ids is None or s.network_id in network_ids
    }
    if leases:
        where = () if network_ids is None else (among(Lease.network_id, list(network_ids)),)
        for network_id, lease in _held(tx, *where):
            if network_id in leases:
                leases[network_id].append(lease)
    quarantined, quarantined_until = _quarantined(tx, leases)
    return Rows(segments, leases, quarantined, quarantined_until)


def new_rows(tx: Transaction, network_ids: Collection[str], instance_ids: Collection[str]) -> Rows:
    """All networks; of these ones all leases, of those that the instances are in the instances' leases alone."""
    found = rows(tx, network_ids)
    leases: dict[str, list[HeldLease]] = {}
    ids = sorted(instance_ids)
    for n in range(0, len(ids), CHUNK):
        for network_id, lease in _held(tx, among(Lease.instance_id, ids[n : n + CHUNK])):
            if network_id not in found.leases:
                leases.setdefault(network_id, []).append(lease)
    marks = _marks(tx, list(leases)) if leases else {}
    new = {n: NewLeases(some, marks[n].mark, marks[n].quarantined) for n, some in leases.items() if n in marks}
    return replace(found, new=new)


def marks(tx: Transaction) -> Rows:
    """All networks with the marks of their leases, which are not read."""
    segments = _segments(tx)
    found = _marks(tx)
    none = NewLeases((), LeaseMark())
    return Rows(segments, {}, new={s.network_id: found.get(s.network_id, none) for s in segments})


def _segments(tx: Transaction) -> Sequence[Segment]:
    cloud_id = tx.settings.general.cloud_id
    networks = tx.session.execute(select(Network.id, Network.vlan, Network.cidr).order_by(Network.vlan))
    return [Segment.of(cloud_id, *n) for n in networks]


def _held(tx: Transaction, *where: ColumnElement[bool]) -> Iterator[tuple[str, HeldLease]]:
    ran = Instance.launched_at.is_not(None)
    columns = (Lease.network_id, Lease.ip, Lease.mac, Lease.instance_id, Lease.dns_name, ran, Lease.id)
    query = select(*columns).join(Instance, Instance.id == Lease.instance_id).where(*where)
    for network_id, ip, mac, instance_id, dns_name, has_run, lease_id in tx.session.execute(query):
        yield network_id, HeldLease(ip, mac, instance_id or "", dns_name, has_run, lease_id)


def _marks(tx: Transaction, network_ids: Collection[str] | None = None) -> Mapping[str, NewLeases]:
    """One statement, and a row for each network, however many leases there are."""
    held = Lease.instance_id.is_not(None)
    number = case((held, cast(Lease.id, BigInteger)), else_=0)
    rest = number % MARK_MODULUS
    quarantined = func.sum(case((held, 0), else_=1))
    query = select(
        Lease.network_id, func.count(Lease.instance_id), func.sum(number), func.sum(rest * rest), quarantined
    )
    query = query.where(or_(held, Lease.free_after.is_not(None))).group_by(Lease.network_id)
    if network_ids is not None:
        query = query.where(among(Lease.network_id, list(network_ids)))
    return {
        network_id: NewLeases((), LeaseMark(count, int(ids), int(squares)), bool(waiting))
        for network_id, count, ids, squares, waiting in tx.session.execute(query)
    }


def _quarantined(tx: Transaction, network_ids: Collection[str]) -> tuple[Mapping[str, Sequence[str]], datetime | None]:
    if not network_ids:
        return {}, None
    given_back = Lease.instance_id.is_(None), Lease.free_after.is_not(None)
    query = select(Lease.network_id, Lease.ip, Lease.free_after).where(*given_back)
    found: dict[str, list[str]] = {}
    latest: datetime | None = None
    for network_id, ip, free_after in tx.session.execute(query):
        if network_id in network_ids and free_after is not None:
            found.setdefault(network_id, []).append(ip)
            latest = free_after if latest is None else max(latest, free_after)
    return found, latest


def end_quarantine(tx: Transaction, rows: Rows, remembered: Mapping[str, Collection[str]]) -> None:
    """Free the addresses that rested in ``rows``, but for those that DHCP remembers still; a network that is not named
    in ``remembered`` was not looked at."""
    for network_id, ips in rows.quarantined.items():
        if network_id in remembered and rows.quarantined_until is not None:
            forgotten = [ip for ip in ips if ip not in remembered[network_id]]
            lease_rows.forgotten(tx, network_id, forgotten, rows.quarantined_until)


def commands(tx: Transaction, instance_ids: Collection[str], failed: Mapping[str, str]) -> Sequence[ReconcileGuests]:
    """What the hosts of these instances are to make, but for those in a network that failed."""
    return reconcile_commands(tx, [i for i in read_instances(tx, instance_ids) if i.network_id not in failed])


def record_failures(tx: Transaction, instance_ids: Collection[str], failed: Mapping[str, str]) -> None:
    """Record in the history of the instances that wait for a network why it failed."""
    waiting = [i for i in read_instances(tx, instance_ids) if i.network_id in failed]
    if waiting:
        _tell(tx, waiting, failed)


def _tell(tx: Transaction, instances: Sequence[LockedInstance], failed: Mapping[str, str]) -> None:
    """Each reason once in a history, however often the sweep notifies."""
    known = select(InstanceEvent.instance_id, InstanceEvent.detail).where(
        among(InstanceEvent.instance_id, [i.id for i in instances]), InstanceEvent.event == NETWORK_FAILED
    )
    recorded = {(instance_id, detail) for instance_id, detail in tx.session.execute(known)}
    tx.session.add_all(
        InstanceEvent(instance_id=i.id, at=tx.now, event=NETWORK_FAILED, state=i.state, detail=failed[i.network_id])
        for i in instances
        if (i.id, failed[i.network_id]) not in recorded
    )
