"""The leases of a pinned network: read from a file and made so, all or none; written to a file again."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from sqlalchemy import bindparam, delete, func, insert, select, update

from controller.db.bulk import among, analyze
from controller.db.models import Host, Instance, Lease, LeasePin, Network
from controller.domain.errors import ClaimConflict, InvalidParameter, LeasesRefused, NetworkNotFound
from controller.domain.lease_file import BadRow, LeaseFile, LeaseRow
from controller.domain.messages import PrepareNetworks
from controller.domain.networks import NetworkKind
from controller.operations.cloud import Transaction
from controller.operations.instances.locking import CHUNK
from controller.operations.networks.lease_checks import ExistingLease, Faults, Surroundings, check_rows, normal_row

MAX_REPORTED = 100

# Who has a lease, or may still use it on a host that was removed.
_HOLDER = func.coalesce(Lease.instance_id, Lease.quarantine_instance).label("holder")


@dataclass(frozen=True)
class LeaseChanges:
    """What an import does, or would do."""

    added: Sequence[LeaseRow]
    changed: Sequence[tuple[ExistingLease, LeaseRow]]
    removed: Sequence[ExistingLease]
    unchanged: int

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)


def import_leases(tx: Transaction, network_id: str, file: LeaseFile, *, prune: bool = False) -> LeaseChanges:
    """Make the network's leases those of the file, all or none. Others stay; with ``prune`` they go.

    A lease in use keeps its IP and MAC, and the host of its instance. Twice is once.

    Raises:
        NetworkNotFound, InvalidParameter: no such network, or one that is not pinned.
        LeasesRefused: with every bad row.
    """
    network = _pinned_network(tx, network_id, lock=True)  # one import at a time
    changes = _changes(tx, network, file, prune)
    while not _lock(tx, changes):  # what is locked stays so, so the second look is the last but for new changes
        changes = _changes(tx, network, file, prune)
    if changes:
        _apply(tx, network, changes)
        if len(changes.added) + len(changes.changed) + len(changes.removed) > CHUNK:
            analyze(tx.session, Lease.__table__, LeasePin.__table__)
        tx.outbox.append(PrepareNetworks((network.id,)))
    return changes


def preview_import(tx: Transaction, network_id: str, file: LeaseFile, *, prune: bool = False) -> LeaseChanges:
    """What ``import_leases`` would do now; it raises the same."""
    return _changes(tx, _pinned_network(tx, network_id, lock=False), file, prune)


def export_leases(tx: Transaction, network_id: str) -> list[LeaseRow]:
    """All leases of a pinned network by address, as ``import_leases`` takes them.

    Raises:
        NetworkNotFound, InvalidParameter
    """
    network = _pinned_network(tx, network_id, lock=False)
    leases = sorted(_leases(tx, network), key=lambda lease: IPv4Address(lease.ip))
    return [LeaseRow(0, x.ip, x.mac, x.name, tuple(sorted(x.hosts))) for x in leases]


def _pinned_network(tx: Transaction, network_id: str, *, lock: bool) -> Network:
    query = select(Network).where(Network.id == network_id)
    network = tx.session.scalar(query.with_for_update(key_share=True) if lock else query)
    if network is None:
        raise NetworkNotFound(id=network_id)
    if network.kind != NetworkKind.PINNED:
        reason = "it is pooled: any host may carry any of its addresses, so none is imported or exported"
        raise InvalidParameter(parameter="network", value=network.name, reason=reason)
    return network


def _changes(tx: Transaction, network: Network, file: LeaseFile, prune: bool) -> LeaseChanges:
    rows = [normal_row(r) for r in file.rows]
    around = _surroundings(tx, network, rows)
    # What could not be read may name any lease: then nothing is known to be missing.
    faults = check_rows(rows, around, prune=prune and not file.bad)
    if faults or file.bad:
        raise _refused(faults, file.bad)
    named = {r.ip for r in rows}
    both = [(around.leases[r.ip], r) for r in rows if r.ip in around.leases]
    changed = [(lease, row) for lease, row in both if not _same(lease, row)]
    return LeaseChanges(
        added=[r for r in rows if r.ip not in around.leases],
        changed=changed,
        removed=[lease for ip, lease in around.leases.items() if ip not in named] if prune else [],
        unchanged=len(both) - len(changed),
    )


def _lock(tx: Transaction, changes: LeaseChanges) -> bool:
    """Lock the leases that are to change, as a claim does, and in the same order; whether they are still as they were
    seen: no other transaction has claimed one, or given it back."""
    seen = {lease.id: lease.instance_id for lease in (*changes.removed, *(lease for lease, _ in changes.changed))}
    ids = sorted(seen)
    found: dict[int, str | None] = {}
    for n in range(0, len(ids), CHUNK):
        query = select(Lease.id, _HOLDER).where(among(Lease.id, ids[n : n + CHUNK])).order_by(Lease.id)
        found |= {row.id: row.holder for row in tx.session.execute(query.with_for_update())}
    return found == seen


def _same(lease: ExistingLease, row: LeaseRow) -> bool:
    return lease.mac == row.mac and lease.name == row.name and lease.hosts == set(row.hosts)


def _refused(faults: Faults, unreadable: Iterable[BadRow]) -> LeasesRefused:
    bad = sorted([*(BadRow(line, "; ".join(reasons)) for line, reasons in faults.items() if line), *unreadable])
    bad += [BadRow(0, reason) for reason in faults.get(0, ())]
    return LeasesRefused(count=len(bad), first=bad[0], rows=tuple(bad[:MAX_REPORTED]))


def _surroundings(tx: Transaction, network: Network, rows: Sequence[LeaseRow]) -> Surroundings:
    pooled = select(Network.number, Network.name, Network.cidr).where(Network.kind == NetworkKind.POOLED)
    wanted = sorted({r.mac for r in rows})
    owners = (
        select(Lease.mac, Network.name)
        .join(Network, Network.id == Lease.network_id)
        .where(Lease.network_id != network.id)
    )
    # All at once rather than many by name: each of those statements may read the whole table as well.
    if len(wanted) <= CHUNK:
        owners = owners.where(among(Lease.mac, wanted))
    macs = {row.mac: row.name for row in tx.session.execute(owners)}
    return Surroundings(
        cidr=network.cidr,
        leases={lease.ip: lease for lease in _leases(tx, network)},
        hosts=frozenset(tx.session.scalars(select(Host.id))),
        macs=macs,
        pooled={number: (name, cidr) for number, name, cidr in tx.session.execute(pooled)},
    )


def _leases(tx: Transaction, network: Network) -> list[ExistingLease]:
    hosts: dict[int, list[str]] = defaultdict(list)
    pins = select(LeasePin.lease_id, LeasePin.host_id).join(Lease, Lease.id == LeasePin.lease_id)
    for lease_id, host_id in tx.session.execute(pins.where(Lease.network_id == network.id)):
        hosts[lease_id].append(host_id)
    query = (
        select(Lease.id, Lease.ip, Lease.mac, Lease.dns_name, _HOLDER, Instance.host_id)
        .outerjoin(Instance, Instance.id == Lease.instance_id)
        .where(Lease.network_id == network.id)
    )
    return [
        ExistingLease(lease, ip, mac, name, holder, host, hosts=frozenset(hosts.get(lease, ())))
        for lease, ip, mac, name, holder, host in tx.session.execute(query)
    ]


def _apply(tx: Transaction, network: Network, changes: LeaseChanges) -> None:
    """A handful of statements, however many leases. A lease with another MAC is another lease: its row is replaced,
    so that two may change places."""
    replaced = [(lease, row) for lease, row in changes.changed if lease.mac != row.mac]
    kept = [(lease, row) for lease, row in changes.changed if lease.mac == row.mac]
    _delete(tx, [lease.id for lease in (*changes.removed, *(lease for lease, _ in replaced))])
    added = [*changes.added, *(row for _, row in replaced)]
    ids = _insert(tx, network, added)
    renamed = [{"lease": lease.id, "name": row.name} for lease, row in kept if lease.name != row.name]
    if renamed:
        table = Lease.__table__
        rename = update(table).where(table.c.id == bindparam("lease"))  # type: ignore[arg-type]
        tx.session.connection().execute(rename.values(dns_name=bindparam("name")), renamed)
    repinned = [(lease.id, row) for lease, row in kept if lease.hosts != set(row.hosts)]
    for n in range(0, len(repinned), CHUNK):
        chunk = [lease_id for lease_id, _ in repinned[n : n + CHUNK]]
        tx.session.execute(delete(LeasePin.__table__).where(among(LeasePin.lease_id, chunk)))  # type: ignore[arg-type]
    _pin(tx, [*((ids[row.ip], row) for row in added), *repinned])


def _delete(tx: Transaction, lease_ids: Sequence[int]) -> None:
    for n in range(0, len(lease_ids), CHUNK):
        chunk = lease_ids[n : n + CHUNK]
        tx.session.execute(delete(LeasePin.__table__).where(among(LeasePin.lease_id, chunk)))  # type: ignore[arg-type]
        free = among(Lease.id, chunk), Lease.instance_id.is_(None), Lease.quarantine_host.is_(None)
        gone = tx.session.execute(delete(Lease.__table__).where(*free))  # type: ignore[arg-type]
        if gone.rowcount != len(chunk):  # type: ignore[attr-defined]
            raise ClaimConflict(kind="lease", id=f"one of {len(chunk)}")


def _insert(tx: Transaction, network: Network, rows: Sequence[LeaseRow]) -> dict[str, int]:
    """The ids of the new leases by IP."""
    if not rows:
        return {}
    values = [
        {"network_id": network.id, "ip": r.ip, "mac": r.mac, "dns_name": r.name, "released_at": tx.now} for r in rows
    ]
    tx.session.execute(insert(Lease.__table__), values)  # type: ignore[arg-type]
    found = select(Lease.ip, Lease.id).where(Lease.network_id == network.id)
    return {row.ip: row.id for row in tx.session.execute(found)}


def _pin(tx: Transaction, leases: Iterable[tuple[int, LeaseRow]]) -> None:
    pins = [{"lease_id": lease_id, "host_id": host} for lease_id, row in leases for host in row.hosts]
    if pins:
        tx.session.execute(insert(LeasePin.__table__), pins)  # type: ignore[arg-type]
