"""Promises 4 and 9: an address has one living owner, is in its network, and a guest has exactly one."""

import socket
import struct
from collections.abc import Mapping

import netaddr
from sqlalchemy import ColumnElement, and_, func, not_, or_, select

from controller.db.models import Instance, Lease, Network
from controller.domain.states import MAYBE_PLACED, PLACED
from controller.operations.audit.violation import KNOWN, Violation
from controller.operations.cloud import Transaction
from controller.operations.networks.leases import FIRST_OFFSET

_FREE_IT = "give it back: set its instance_id to NULL, its released_at to the time now in UTC"


def owners(tx: Transaction) -> list[Violation]:
    """An instance that is on a host has one lease, in its network."""
    held = (
        select(Lease.instance_id, func.count().label("leases"), func.max(Lease.network_id).label("network_id"))
        .where(Lease.instance_id.is_not(None))
        .group_by(Lease.instance_id)
        .subquery()
    )
    rows = tx.session.execute(
        select(Instance.id, Instance.state, func.coalesce(held.c.leases, 0), held.c.network_id, Instance.network_id)
        .outerjoin(held, held.c.instance_id == Instance.id)
        .where(
            or_(
                and_(_is_placed(), func.coalesce(held.c.leases, 0) != 1),
                held.c.leases > 1,
                held.c.network_id != Instance.network_id,
            )
        )
    )
    return [
        Violation(4, f"it is {state} with {leases} leases", instance, "it cannot be reached as described: terminate it")
        if leases != 1
        else Violation(4, f"its lease is in {lies_in}, it is in {network}", instance, "terminate it")
        for instance, state, leases, lies_in, network in rows
    ]


def kept(tx: Transaction) -> list[Violation]:
    """A lease that is owned belongs to an instance on a host, and is not given back at the same time."""
    rows = tx.session.execute(
        select(Lease.ip, Lease.mac, Lease.instance_id, Instance.state, Lease.released_at)
        .outerjoin(Instance, Instance.id == Lease.instance_id)
        .where(
            Lease.instance_id.is_not(None),
            or_(
                Instance.id.is_(None),
                and_(not_(_is_placed()), Instance.state.in_(KNOWN)),
                Lease.released_at.is_not(None),
            ),
        )
    )
    return [
        Violation(
            4,
            f"its lease ({mac}) was given back at {released_at:%FT%TZ} and belongs to {owner} still"
            if released_at is not None
            else f"its lease ({mac}) belongs to {owner}, which is {state or 'gone'} and on no host",
            ip,
            "set released_at to NULL" if released_at is not None else _FREE_IT,
        )
        for ip, mac, owner, state, released_at in rows
    ]


def doubles(tx: Transaction) -> list[Violation]:
    """No address twice in a network, no MAC twice at all, however it is written."""
    addresses = tx.session.execute(
        select(Lease.network_id, Lease.ip, func.count()).group_by(Lease.network_id, Lease.ip).having(func.count() > 1)
    )
    advice = "terminate all owners but one, delete the other rows"
    found = [Violation(4, f"{count} leases of {network} have it", ip, advice) for network, ip, count in addresses]
    mac = func.lower(Lease.mac)
    macs = tx.session.execute(select(mac, func.count()).group_by(mac).having(func.count() > 1))
    return found + [Violation(4, f"{count} leases have this MAC", address, advice) for address, count in macs]


def outside(tx: Transaction) -> list[Violation]:
    """Every address is one that a guest can have in its network. It may lie behind the next new one: somebody asked for
    it by address, and it is passed over."""
    networks: Mapping[str, tuple[str, int, int]] = {n: (cidr, span.first, span.last) for n, cidr, span in _networks(tx)}
    found = []
    for network_id, ip in tx.session.execute(select(Lease.network_id, Lease.ip)):
        if network_id not in networks:
            continue  # no such range: told by the check of the networks
        cidr, first, last = networks[network_id]
        number = _number(ip)
        if number is None or not first + FIRST_OFFSET <= number < last:
            advice = "terminate its owner, delete the row"
            found.append(Violation(4, f"no guest can have it in {network_id} ({cidr})", ip, advice))
    return found


def _networks(tx: Transaction) -> list[tuple[str, str, netaddr.IPNetwork]]:
    found = []
    for row in tx.session.execute(select(Network.id, Network.cidr)):
        try:
            found.append((*row, netaddr.IPNetwork(row.cidr)))
        except (netaddr.AddrFormatError, ValueError):
            continue
    return found


def _number(ip: str) -> int | None:
    """The address as a number; there are too many for netaddr."""
    try:
        return int(struct.unpack("!I", socket.inet_pton(socket.AF_INET, ip))[0])
    except OSError:
        return None


def _is_placed() -> ColumnElement[bool]:
    return or_(Instance.state.in_(PLACED), and_(Instance.state.in_(MAYBE_PLACED), Instance.host_id.is_not(None)))


CHECKS = (owners, kept, doubles, outside)
