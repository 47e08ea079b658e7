"""Addresses: an IP and its MAC are one lease, claimed and given back as one row."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import netaddr
from sqlalchemy import (
    BindParameter,
    ColumnElement,
    and_,
    bindparam,
    case,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)

from controller.db.models import Lease, LeasePin, Network, NetworkKind
from controller.domain.errors import AddressInUse, ClaimConflict, NoFreeAddress
from controller.operations.cloud import Transaction
from controller.operations.held import CHUNK, HeldInstance

# 0 is the network itself, 1 the gateway; the last one is the broadcast address.
GATEWAY_OFFSET = 1
FIRST_OFFSET = 2

_L = Lease.__table__
_TAKE_PINNED = (
    update(_L)  # type: ignore[arg-type]
    .where(
        _L.c.id == bindparam("lease"),
        _L.c.instance_id.is_(None),
        exists().where(LeasePin.lease_id == bindparam("lease"), LeasePin.host_id == bindparam("host")),
    )
    .values(instance_id=bindparam("instance"), released_at=None, free_after=None)
)
_TAKE_FREE = (
    update(_L)  # type: ignore[arg-type]
    .where(
        _L.c.id == bindparam("lease"),
        _L.c.instance_id.is_(None),
        or_(_L.c.free_after.is_(None), _L.c.free_after <= bindparam("now")),
    )
    .values(instance_id=bindparam("instance"), released_at=None, free_after=None)
)


def gateway(cidr: str) -> str:
    """The address of the network node in this network."""
    return str(netaddr.IPNetwork(cidr)[GATEWAY_OFFSET])


def end_offset(cidr: str) -> int:
    """The offset behind the last one that a guest may have."""
    return int(netaddr.IPNetwork(cidr).size) - 1


def is_free(now: datetime | BindParameter[datetime]) -> ColumnElement[bool]:
    """Whether a lease can be claimed: nobody holds it, and no DHCP server may remember who did."""
    return and_(Lease.instance_id.is_(None), or_(Lease.free_after.is_(None), Lease.free_after <= now))


def free_addresses(tx: Transaction, network: Network) -> int:
    """How many guests the network can take right now."""
    released = tx.session.scalar(
        select(func.count()).select_from(Lease).where(Lease.network_id == network.id, is_free(tx.now))
    )
    return max(0, end_offset(network.cidr) - network.next_offset) + (released or 0)


def claim_leases(tx: Transaction, network: Network, instances: Sequence[HeldInstance]) -> None:
    """Give each instance an address of a pooled network: the one it wants, else untouched ones first, then those that
    were given back longest ago, if DHCP has forgotten who had them.

    An IP never changes its MAC, so the DHCP server's memory of it is right whoever has it next.

    Raises:
        NoFreeAddress: there are not enough; AddressInUse: not the wanted one. None is claimed then.
        ClaimConflict: somebody else took one meanwhile, or has one locked.
    """
    # One claim at a time in a network: whoever comes second sees what the first one left.
    tx.session.refresh(network, with_for_update={"key_share": True})
    for instance in instances:
        if instance.wanted_ip:
            _claim_wanted(tx, network, instance)
    others = [i for i in instances if not i.wanted_ip]
    fresh = _untouched(tx, network, len(others))
    _insert(tx, network, list(zip(others, fresh, strict=False)))
    if len(fresh) < len(others):
        _claim_released(tx, network, others[len(fresh) :])


def find_lease(tx: Transaction, network_id: str, ip: str) -> int:
    """The id of the lease with this address; 0 where there is none."""
    return tx.session.scalar(select(Lease.id).where(Lease.network_id == network_id, Lease.ip == ip)) or 0


def lock_free(tx: Transaction, lease_ids: Sequence[int]) -> set[int]:
    """Lock those of the leases that are free and that nobody else is about to claim; answers which."""
    locked: set[int] = set()
    for n in range(0, len(lease_ids), CHUNK):
        query = select(Lease.id).where(Lease.id.in_(lease_ids[n : n + CHUNK]), Lease.instance_id.is_(None))
        locked |= set(tx.session.scalars(query.order_by(Lease.id).with_for_update(skip_locked=True)))
    return locked


def claim_pinned(tx: Transaction, pairs: Sequence[tuple[HeldInstance, int]]) -> None:
    """Give each instance its lease, all or nothing; each must be pinned to the instance's host at this moment.

    Raises:
        ClaimConflict: somebody else has one, or its pins have changed.
    """
    wanted = [{"lease": lease, "instance": i.id, "host": i.host_id} for i, lease in pairs]
    taken = tx.session.connection().execute(_TAKE_PINNED, wanted)
    if taken.rowcount != len(wanted):
        raise ClaimConflict(kind="lease", id=pairs[0][1] if len(pairs) == 1 else f"{len(pairs)} leases")


def give_back(tx: Transaction, instance_ids: Sequence[str]) -> set[str]:
    """Free the leases of these instances, whose guests are gone; answers with the networks.

    Where a real DHCP server gives out pooled addresses, each is kept until the last holder's lease has surely run out,
    or ``forgotten`` is called. A pinned one is the same machine's address again.
    """
    held = Lease.instance_id.in_(instance_ids)
    networks = select(Network.id, Network.kind).where(Network.id.in_(select(Lease.network_id).where(held)))
    freed = {row.id: row.kind for row in tx.session.execute(networks)}
    conf = tx.settings.network
    remembered = [n for n, kind in freed.items() if kind == NetworkKind.POOLED and conf.driver != "none"]
    until = literal(tx.now + timedelta(seconds=conf.lease_s), Lease.free_after.type)
    free_after = case((Lease.network_id.in_(remembered), until), else_=None) if remembered else None
    tx.session.execute(
        update(Lease)
        .where(held)
        .values(instance_id=None, released_at=tx.now, free_after=free_after)
        .execution_options(synchronize_session=False)
    )
    return set(freed)


def forgotten(tx: Transaction, network_id: str, ips: Sequence[str], latest: datetime) -> None:
    """DHCP has forgotten who had these addresses; one that was given back again after ``latest`` is left alone."""
    for n in range(0, len(ips), CHUNK):
        where = Lease.network_id == network_id, Lease.ip.in_(ips[n : n + CHUNK]), Lease.free_after <= latest
        tx.session.execute(
            update(Lease)
            .where(*where, Lease.instance_id.is_(None))
            .values(free_after=None)
            .execution_options(synchronize_session=False)
        )


def _claim_wanted(tx: Transaction, network: Network, instance: HeldInstance) -> None:
    ip = instance.wanted_ip
    if find_lease(tx, network.id, ip) == 0:
        offset = int(netaddr.IPAddress(ip)) - netaddr.IPNetwork(network.cidr).first
        _insert(tx, network, [(instance, offset)])
        return
    taken = tx.session.execute(
        update(Lease)
        .where(Lease.network_id == network.id, Lease.ip == ip, is_free(tx.now))
        .values(instance_id=instance.id, released_at=None, free_after=None)
        .execution_options(synchronize_session=False)
    )
    if taken.rowcount != 1:  # type: ignore[attr-defined]
        raise AddressInUse(id=ip, user="another instance, or was until a moment ago")


def _untouched(tx: Transaction, network: Network, count: int) -> list[int]:
    """Up to ``count`` offsets that nobody ever had; those that somebody wanted by address are passed over."""
    first_ip, end = netaddr.IPNetwork(network.cidr).first, end_offset(network.cidr)
    found: list[int] = []
    while len(found) < count and network.next_offset < end:
        some = range(
            network.next_offset, min(end, network.next_offset + count - len(found), network.next_offset + CHUNK)
        )
        ips = {str(netaddr.IPAddress(first_ip + o)): o for o in some}
        had = select(Lease.ip).where(Lease.network_id == network.id, Lease.ip.in_(ips))
        passed = {ips[ip] for ip in tx.session.scalars(had)}
        found += [o for o in some if o not in passed]
        network.next_offset = some.stop
    return found


def _insert(tx: Transaction, network: Network, pairs: Sequence[tuple[HeldInstance, int]]) -> None:
    first_ip = netaddr.IPNetwork(network.cidr).first
    rows = [
        {
            "network_id": network.id,
            "ip": str(netaddr.IPAddress(first_ip + offset)),
            "mac": _mac(network.number, offset),
            "instance_id": instance.id,
            "dns_name": "",
        }
        for instance, offset in pairs
    ]
    if rows:
        tx.session.execute(insert(Lease.__table__), rows)  # type: ignore[arg-type]


def _claim_released(tx: Transaction, network: Network, instances: Sequence[HeldInstance]) -> None:
    free = tx.session.scalars(
        select(Lease.id)
        .where(Lease.network_id == network.id, is_free(tx.now))
        .order_by(Lease.released_at, Lease.id)
        .limit(len(instances))
        .with_for_update(skip_locked=True)
    ).all()
    if len(free) < len(instances):
        # Those that another transaction has locked for a moment were skipped, but they are counted here.
        if (there := free_addresses(tx, network)) >= len(instances):
            raise ClaimConflict(kind="network", id=network.id)
        raise NoFreeAddress(network=network.name, cidr=network.cidr, free=there, asked=len(instances))
    wanted = [{"lease": lease, "instance": i.id, "now": tx.now} for lease, i in zip(free, instances, strict=True)]
    taken = tx.session.connection().execute(_TAKE_FREE, wanted)
    if taken.rowcount != len(wanted):
        raise ClaimConflict(kind="lease", id=free[0] if len(free) == 1 else f"{len(free)} leases")


def _mac(number: int, offset: int) -> str:
    """52:54 (QEMU's own range), two bytes of the network's number, two of the offset: unique in the cloud."""
    return f"52:54:{number >> 8:02x}:{number & 255:02x}:{offset >> 8:02x}:{offset & 255:02x}"
