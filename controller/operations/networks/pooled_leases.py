"""Addresses of pooled networks: first chosen, under the network's lock, then claimed by those who get one.

Nothing is written for an address before it is certain who has it, so who is refused holds none.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import netaddr
from sqlalchemy import ColumnElement, String, Update, func, select, update
from sqlalchemy.types import TypeEngine

from controller.db.bulk import among, insert_rows, update_rows
from controller.db.models import Lease, Network
from controller.domain.errors import ClaimConflict
from controller.domain.networks import NetworkKind
from controller.operations.cloud import Transaction
from controller.operations.instances.locking import CHUNK, LockedInstance
from controller.operations.networks.leases import end_offset, is_free

_L = Lease.__table__
_ROW: Mapping[str, TypeEngine[Any]] = {"lease": _L.c.id.type, "instance": String()}


def _take(row: Callable[[str], ColumnElement[Any]]) -> Update:
    return (
        update(_L)  # type: ignore[arg-type]
        .where(_L.c.id == row("lease"), _L.c.instance_id.is_(None))
        .values(instance_id=row("instance"), released_at=None, free_after=None)
    )


@dataclass(frozen=True)
class Addresses:
    """Addresses that the caller may claim until its transaction ends: offsets that have no lease yet, and leases that
    were given back, in the order in which they are given out."""

    untouched: Sequence[int] = field(default_factory=tuple)
    released: Sequence[int] = field(default_factory=tuple)

    def __len__(self) -> int:
        return len(self.untouched) + len(self.released)


def lock_pools(tx: Transaction, network_ids: Collection[str]) -> dict[str, Network]:
    """Those of the networks that are pooled, locked in one order: one claim at a time in a network, so that
    the second one sees what the first one left."""
    query = select(Network).where(among(Network.id, sorted(network_ids)), Network.kind == NetworkKind.POOLED)
    locked = query.order_by(Network.id).with_for_update(key_share=True).execution_options(populate_existing=True)
    return {n.id: n for n in tx.session.scalars(locked)}


def choose_addresses(tx: Transaction, network: Network, most: int) -> Addresses:
    """Up to ``most`` addresses of a locked network: untouched ones first, then those that were given back longest ago,
    if DHCP has forgotten who had them.

    An IP never changes its MAC, so what the DHCP server remembers of it holds for its next guest too.
    """
    untouched = _untouched(tx, network, most)
    return Addresses(untouched, _released(tx, network, most - len(untouched)))


def choose_wanted(tx: Transaction, network: Network, ip: str) -> Addresses:
    """This very address of a locked network, or none where it is not free."""
    lease_id = tx.session.scalar(select(Lease.id).where(Lease.network_id == network.id, Lease.ip == ip))
    if lease_id is None:
        return Addresses(untouched=(int(netaddr.IPAddress(ip)) - netaddr.IPNetwork(network.cidr).first,))
    free = select(Lease.id).where(Lease.id == lease_id, is_free(tx.now)).with_for_update()
    return Addresses(released=tuple(tx.session.scalars(free)))


def claim_addresses(
    tx: Transaction, network: Network, instances: Sequence[LockedInstance], addresses: Addresses
) -> None:
    """Give each instance one of the addresses, in order; there are enough. What is chosen next is behind them.

    Raises:
        ClaimConflict: one of them is not free any more; nothing may be committed then.
    """
    fresh = addresses.untouched[: len(instances)]
    _insert(tx, network, instances, fresh)
    if fresh and not instances[0].wanted_ip:
        network.next_offset = max(network.next_offset, fresh[-1] + 1)
    others = zip(addresses.released, instances[len(fresh) :], strict=False)
    wanted = [{"lease": lease, "instance": i.id} for lease, i in others]
    if wanted and update_rows(tx.session, _take, _ROW, wanted) != len(wanted):
        raise ClaimConflict(kind="lease", id=f"{len(wanted)} of network {network.id}")


def _untouched(tx: Transaction, network: Network, most: int) -> list[int]:
    """Offsets that no instance ever had; those that were asked for by address are passed over."""
    first_ip, end = netaddr.IPNetwork(network.cidr).first, end_offset(network.cidr)
    found: list[int] = []
    at = network.next_offset
    while len(found) < most and at < end:
        some = range(at, min(end, at + most - len(found), at + CHUNK))
        ips = {str(netaddr.IPAddress(first_ip + o)): o for o in some}
        had = select(Lease.ip).where(Lease.network_id == network.id, among(Lease.ip, ips))
        passed = {ips[ip] for ip in tx.session.scalars(had)}
        found += [o for o in some if o not in passed]
        at = some.stop
    return found


def _released(tx: Transaction, network: Network, most: int) -> Sequence[int]:
    if most <= 0:
        return ()
    mine = Lease.network_id == network.id, is_free(tx.now)
    query = select(Lease.id).where(*mine).order_by(Lease.released_at, Lease.id).limit(most)
    found = tx.session.scalars(query.with_for_update(skip_locked=True)).all()
    if len(found) < most and (tx.session.scalar(select(func.count()).where(*mine)) or 0) > len(found):
        # Another transaction has locked some for a moment, which does not make them taken: wait for it.
        found = tx.session.scalars(query.with_for_update()).all()
    return found


def _insert(tx: Transaction, network: Network, instances: Sequence[LockedInstance], offsets: Sequence[int]) -> None:
    first_ip = netaddr.IPNetwork(network.cidr).first
    rows = [
        {
            "network_id": network.id,
            "ip": str(netaddr.IPAddress(first_ip + offset)),
            "mac": _mac(network.number, offset),
            "instance_id": instance.id,
            "dns_name": "",
        }
        for instance, offset in zip(instances, offsets, strict=False)
    ]
    insert_rows(tx.session, Lease.__table__, rows)


def _mac(number: int, offset: int) -> str:
    """52:54 (QEMU's own range), two bytes of the network's number, two of the offset: unique in the cloud."""
    return f"52:54:{number >> 8:02x}:{number & 255:02x}:{offset >> 8:02x}:{offset & 255:02x}"
