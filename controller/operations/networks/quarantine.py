"""Addresses of guests that may still run on a removed host: no other guest gets them until that is known.

A host that is removed with its instances gives no answer any more. Their addresses are kept until its agent, in the
host's new epoch, shows those guests no more, or until an operator says that the host is dead.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import structlog
from sqlalchemy import func, select

from controller.db.bulk import among
from controller.db.models import Host, Lease, Network, RemovedHost
from controller.domain.errors import Conflict, HostNotFound
from controller.domain.messages import HostReported
from controller.operations.cloud import Transaction
from controller.operations.hosts.fencing import Heard
from controller.operations.instances.locking import CHUNK, chunks
from controller.operations.networks.leases import end_quarantine

log = structlog.get_logger(__name__)


class KeptLease(NamedTuple):
    """A row of a lease that is kept because of a guest on a host."""

    id: int
    host: str
    instance: str


@dataclass(frozen=True)
class Quarantined:
    """One address that is kept, and why."""

    network: str
    ip: str
    mac: str
    host: str
    instance: str


def lock_kept(tx: Transaction, messages: Iterable[HostReported]) -> Sequence[KeptLease]:
    """What is kept because of hosts whose quarantine these heartbeats may end, locked: before the hosts are (see
    ``held``)."""
    # Only a host that was removed once has a higher epoch than the first, unless its agent does not know its epoch.
    return _lock(tx, [m.host for m in messages if m.epoch > 1])


def lock_kept_by(tx: Transaction, host_id: str) -> Sequence[KeptLease]:
    """What is kept because of this host, locked: before the host is, as ``lock_kept``."""
    return _lock(tx, [host_id])


def look_at(tx: Transaction, heard: Sequence[Heard], kept: Sequence[KeptLease]) -> None:
    """End the quarantine of ``kept`` addresses whose guests a removed host shows no more, nor has work in hand for."""
    shown = {
        h.message.host: {g.instance_id for g in h.message.guests}.union(h.message.pending)
        for h in heard
        if h.epoch > 1 and h.message.epoch == h.epoch
    }
    over = [k.id for k in kept if k.host in shown and k.instance not in shown[k.host]]
    _end(tx, over)
    if over:
        log.info("addresses leave quarantine: their host shows their guests no more", count=len(over))


def fence(tx: Transaction, host_id: str) -> int:
    """An operator says that a removed host is dead: its addresses are free. Answers how many.

    Raises:
        HostNotFound: no such host was removed. Conflict: it is registered.
    """
    kept = lock_kept_by(tx, host_id)
    removed = tx.session.get(RemovedHost, host_id, with_for_update=True)
    if tx.session.get(Host, host_id) is not None:
        reason = f"host {host_id} is registered: only one that was removed can be fenced (`pileus host remove --force`)"
        later = "of one that came back, its agent ends the quarantine, from release 0.2 on"
        raise Conflict(reason=f"{reason}; {later}")
    if removed is None:
        raise HostNotFound(id=host_id)
    removed.fenced_at = tx.now
    _end(tx, [k.id for k in kept])
    return len(kept)


def list_quarantined(
    tx: Transaction, network_id: str = "", host_id: str = "", before: datetime | None = None
) -> list[Quarantined]:
    """What is kept: of one network, of one host, since ``before``, or all."""
    query = (
        select(Network.name, Lease.ip, Lease.mac, Lease.quarantine_host, Lease.quarantine_instance)
        .join(Network, Network.id == Lease.network_id)
        .where(Lease.quarantine_host.is_not(None))
        .order_by(Network.name, Lease.id)
    )
    if network_id:
        query = query.where(Lease.network_id == network_id)
    if host_id:
        query = query.where(Lease.quarantine_host == host_id)
    if before is not None:
        query = query.where(Lease.released_at < before)
    rows = tx.session.execute(query)
    return [Quarantined(network, ip, mac, host or "", instance or "") for network, ip, mac, host, instance in rows]


def count(tx: Transaction) -> int:
    """How many addresses are kept."""
    return tx.session.scalar(select(func.count()).select_from(Lease).where(Lease.quarantine_host.is_not(None))) or 0


def removed_host(tx: Transaction, host_id: str) -> RemovedHost:
    """What is remembered of a host that was removed. Raises HostNotFound."""
    removed = tx.session.get(RemovedHost, host_id)
    if removed is None:
        raise HostNotFound(id=host_id)
    return removed


def _lock(tx: Transaction, hosts: Sequence[str]) -> list[KeptLease]:
    found: list[KeptLease] = []
    for chunk in chunks(sorted(hosts)):
        query = select(Lease.id, Lease.quarantine_host, Lease.quarantine_instance)
        query = query.where(among(Lease.quarantine_host, chunk)).order_by(Lease.id).with_for_update()
        found += [KeptLease(i, host or "", instance or "") for i, host, instance in tx.session.execute(query)]
    return found


def _end(tx: Transaction, lease_ids: Sequence[int]) -> None:
    for n in range(0, len(lease_ids), CHUNK):
        end_quarantine(tx, lease_ids[n : n + CHUNK])
