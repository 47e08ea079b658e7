"""Addresses: an IP and its MAC are one lease, claimed and given back as one row."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import netaddr
from sqlalchemy import (
    ColumnElement,
    String,
    Update,
    and_,
    case,
    exists,
    func,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.types import TypeEngine

from controller.db.bulk import among, update_rows
from controller.db.models import Lease, LeasePin, Network
from controller.domain.errors import ClaimConflict
from controller.domain.networks import NetworkKind
from controller.operations.cloud import Transaction
from controller.operations.instances.locking import CHUNK, LockedInstance

# 0 is the network itself, 1 the gateway; the last one is the broadcast address.
GATEWAY_OFFSET = 1
FIRST_OFFSET = 2

_L = Lease.__table__


def gateway(cidr: str) -> str:
    """The address of the network node in this network."""
    return str(netaddr.IPNetwork(cidr)[GATEWAY_OFFSET])


def end_offset(cidr: str) -> int:
    """The offset behind the last one that a guest may have."""
    return int(netaddr.IPNetwork(cidr).size) - 1


def is_free(now: datetime | ColumnElement[datetime]) -> ColumnElement[bool]:
    """Whether a lease can be claimed: no guest holds it, not even on a host that was removed, and no DHCP server may
    remember its last holder."""
    no_holder = Lease.instance_id.is_(None), Lease.quarantine_host.is_(None)
    return and_(*no_holder, or_(Lease.free_after.is_(None), Lease.free_after <= now))


_PINNED_ROW: Mapping[str, TypeEngine[Any]] = {
    "lease": _L.c.id.type,
    "instance": String(),
    "host": String(),
    "now": _L.c.free_after.type,
}


def _take_pinned(row: Callable[[str], ColumnElement[Any]]) -> Update:
    pinned = exists().where(LeasePin.lease_id == _L.c.id, LeasePin.host_id == row("host"))
    return (
        update(_L)  # type: ignore[arg-type]
        .where(_L.c.id == row("lease"), is_free(row("now")), pinned)
        .values(instance_id=row("instance"), released_at=None, free_after=None)
    )


def free_addresses(tx: Transaction, network: Network) -> int:
    """How many guests the network can take right now."""
    released = tx.session.scalar(
        select(func.count()).select_from(Lease).where(Lease.network_id == network.id, is_free(tx.now))
    )
    return max(0, end_offset(network.cidr) - network.next_offset) + (released or 0)


def find_lease(tx: Transaction, network_id: str, ip: str) -> int:
    """The id of the lease with this address; 0 where there is none."""
    return tx.session.scalar(select(Lease.id).where(Lease.network_id == network_id, Lease.ip == ip)) or 0


def lock_free(tx: Transaction, lease_ids: Sequence[int]) -> set[int]:
    """Lock those of the leases that are free and that no other transaction has locked; answers which."""
    locked: set[int] = set()
    for n in range(0, len(lease_ids), CHUNK):
        query = select(Lease.id).where(among(Lease.id, lease_ids[n : n + CHUNK]), is_free(tx.now))
        locked |= set(tx.session.scalars(query.order_by(Lease.id).with_for_update(skip_locked=True)))
    return locked


def claim_pinned(tx: Transaction, pairs: Sequence[tuple[LockedInstance, int]]) -> None:
    """Give each instance its lease, all or nothing; each must be pinned to the instance's host at this moment.

    Raises:
        ClaimConflict: another instance has one, or its pins have changed.
    """
    if not pairs:
        return
    wanted = [{"lease": lease, "instance": i.id, "host": i.host_id, "now": tx.now} for i, lease in pairs]
    if update_rows(tx.session, _take_pinned, _PINNED_ROW, wanted) != len(wanted):
        raise ClaimConflict(kind="lease", id=pairs[0][1] if len(pairs) == 1 else f"{len(pairs)} leases")


def give_back(tx: Transaction, instance_ids: Sequence[str]) -> set[str]:
    """Free the leases of these instances, whose guests are gone; answers with the networks.

    Where a real DHCP server gives out pooled addresses, each is kept until the last holder's lease has surely run out,
    or ``forgotten`` is called. A pinned one is the same machine's address again.
    """
    held = among(Lease.instance_id, instance_ids)
    freed = _kinds(tx, held)
    tx.session.execute(
        update(Lease)
        .where(held)
        .values(instance_id=None, released_at=tx.now, free_after=_free_after(tx, freed))
        .execution_options(synchronize_session=False)
    )
    return set(freed)


def quarantine(tx: Transaction, host_id: str, instance_ids: Sequence[str]) -> None:
    """Quarantine the leases of these instances, which are about to be given back: their guests may still use them on
    that host."""
    tx.session.execute(
        update(Lease)
        .where(among(Lease.instance_id, instance_ids))
        .values(quarantine_host=host_id, quarantine_instance=Lease.instance_id)
        .execution_options(synchronize_session=False)
    )


def end_quarantine(tx: Transaction, lease_ids: Sequence[int]) -> None:
    """From now on these are as addresses that were given back just now."""
    kept = among(Lease.id, lease_ids), Lease.quarantine_host.is_not(None)
    networks = _kinds(tx, and_(*kept))
    tx.session.execute(
        update(Lease)
        .where(*kept)
        .values(quarantine_host=None, quarantine_instance=None, free_after=_free_after(tx, networks))
        .execution_options(synchronize_session=False)
    )


def _kinds(tx: Transaction, of: ColumnElement[bool]) -> dict[str, str]:
    """The kind of each network that one of these leases is in."""
    networks = select(Network.id, Network.kind).where(Network.id.in_(select(Lease.network_id).where(of)))
    return {row.id: row.kind for row in tx.session.execute(networks)}


def _free_after(tx: Transaction, kinds: Mapping[str, str]) -> ColumnElement[datetime] | None:
    """Until when an address of these networks that is given back now is kept."""
    conf = tx.settings.network
    remembered = [n for n, kind in kinds.items() if kind != NetworkKind.PINNED and conf.driver != "none"]
    until = literal(tx.now + timedelta(seconds=conf.lease_s), Lease.free_after.type)
    return case((among(Lease.network_id, remembered), until), else_=None) if remembered else None


def forgotten(tx: Transaction, network_id: str, ips: Sequence[str], latest: datetime) -> None:
    """DHCP has forgotten who had these addresses; one that was given back again after ``latest`` is left alone."""
    for n in range(0, len(ips), CHUNK):
        where = Lease.network_id == network_id, among(Lease.ip, ips[n : n + CHUNK]), Lease.free_after <= latest
        tx.session.execute(
            update(Lease)
            .where(*where, Lease.instance_id.is_(None))
            .values(free_after=None)
            .execution_options(synchronize_session=False)
        )
