"""Whether the cloud can hold what is asked for, at the moment of the request.

A quick answer for the client; the scheduler decides, in its own transaction, on which host and with which address.
"""

import functools
from collections import Counter
from collections.abc import Set
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from typing import Any

from sqlalchemy import ColumnElement, Integer, Row, Select, bindparam, case, func, select

from controller.db.models import Host, Image, Instance, InstanceType, Lease, Network
from controller.domain.errors import AddressInUse, InvalidParameter, NoFreeAddress, NoValidHost, ZoneNotFound
from controller.domain.hosts import HostMode
from controller.domain.networks import NetworkKind
from controller.domain.states import State
from controller.operations.cloud import Transaction
from controller.operations.networks.leases import FIRST_OFFSET, end_offset, free_addresses, is_free

# Part of every launch, so it is built once.
_FREE_LEASES = select(func.count()).select_from(
    select(Lease.id)
    .where(Lease.network_id == bindparam("network_id"), is_free(bindparam("now")))
    .limit(bindparam("most", type_=Integer))
    .subquery()
)


def addresses_for(tx: Transaction, network: Network, least: int, most: int) -> int:
    """For how many instances, up to ``most``, the network has addresses.

    Raises:
        NoFreeAddress: for less than ``least``; it says how many there are.
    """
    untouched = max(0, end_offset(network.cidr) - network.next_offset)
    if untouched >= most:
        return most
    # No more are counted than are asked for: of one request's leases, not of thousands.
    values = {"network_id": network.id, "now": tx.now, "most": most - untouched}
    free = untouched + (tx.session.connection().scalar(_FREE_LEASES, values) or 0)
    if free < least:
        raise NoFreeAddress(
            network=network.name, cidr=network.cidr, free=free_addresses(tx, network), asked=least
        )  # fmt: skip
    return free


def check_address(tx: Transaction, network: Network, ip: str) -> None:
    """Whether an instance can have this very address.

    Raises:
        InvalidParameter: no guest of this network can have it. AddressInUse
    """
    _check_range(network, ip)
    lease = tx.session.execute(
        select(Lease.id, Lease.instance_id, Lease.free_after, Lease.quarantine_host).where(
            Lease.network_id == network.id, Lease.ip == ip
        )
    ).one_or_none()
    if lease is None and network.kind == NetworkKind.PINNED:
        reason = f"network '{network.name}' has no lease for it"
        raise InvalidParameter(parameter="address", value=ip, reason=reason)
    if lease is not None and lease.instance_id is not None:
        raise AddressInUse(id=ip, user="an instance")
    if lease is not None and lease.quarantine_host is not None:
        raise AddressInUse(id=ip, user=f"a guest that may still run on host {lease.quarantine_host}, which was removed")
    if lease is not None and lease.free_after is not None and lease.free_after > tx.now:
        until = f"{lease.free_after:%FT%TZ}"
        raise AddressInUse(id=ip, user=f"DHCP for an instance that is gone, until it is released, at {until} at last")
    waiting = Instance.network_id == network.id, Instance.wanted_ip == ip, Instance.state == State.REQUESTED
    if tx.session.scalar(select(func.count()).select_from(Instance).where(*waiting)):
        raise AddressInUse(id=ip, user="an instance that is about to start")


def _check_range(network: Network, ip: str) -> None:
    cidr = IPv4Network(network.cidr)
    try:
        offset = int(IPv4Address(ip)) - int(cidr.network_address)
    except AddressValueError as error:
        reason = "it is no IPv4 address"
        raise InvalidParameter(parameter="address", value=ascii(ip[:40]).strip("'"), reason=reason) from error
    if not FIRST_OFFSET <= offset < end_offset(network.cidr):
        reason = f"a guest of network '{network.name}' has one from {cidr[FIRST_OFFSET]} to {cidr[-2]}"
        raise InvalidParameter(parameter="address", value=ip, reason=reason)


def room_for(tx: Transaction, image: Image, instance_type: InstanceType, zone: str, least: int, most: int) -> int:
    """How many instances of this type, up to ``most``, the hosts have room for right now: never less than the
    scheduler could place, for it looks at more than this.

    Raises:
        ZoneNotFound: no host is in this zone.
        NoValidHost: for less than ``least``; it says how many hosts were refused and why.
    """
    room = _room(tx, image, instance_type, zone)
    if room < least:
        raise _no_room(tx, image, instance_type, zone, least)
    return min(room, most)


def _room(tx: Transaction, image: Image, instance_type: InstanceType, zone: str) -> int:
    """One sum in the database: hundreds of hosts are not read for each request."""
    values: dict[str, object] = {
        "vcpus": instance_type.vcpus,
        "memory_mib": instance_type.memory_mib,
        "architecture": image.architecture,
        **({"disk_gib": instance_type.disk_gib} if instance_type.disk_gib else {}),
        **({"zone": zone} if zone else {}),
        **({"hypervisor": image.hypervisor} if image.hypervisor else {}),
    }
    return int(tx.session.connection().scalar(_room_query(frozenset(values)), values) or 0)


@functools.cache
def _room_query(given: Set[str]) -> Select[tuple[int]]:
    """Made once for each set of parameters: building it costs more than running it."""
    free: dict[str, ColumnElement[Any]] = {
        "vcpus": Host.vcpus_limit - Host.vcpus_used,
        "memory_mib": Host.memory_limit_mib - Host.memory_used_mib,
        "disk_gib": Host.disk_limit_gib - Host.disk_used_gib,
    }
    where = [Host.up, Host.mode == HostMode.READY, Host.architecture == bindparam("architecture")]
    where += [getattr(Host, name) == bindparam(name) for name in ("zone", "hypervisor") if name in given]
    fits: ColumnElement[Any] | None = None
    for name in (n for n in free if n in given):
        need: ColumnElement[Any] = bindparam(name, type_=Integer)
        if name == "memory_mib":
            need = need + Host.guest_overhead_mib
        where.append(free[name] >= need)
        other = free[name] // need
        fits = other if fits is None else case((fits < other, fits), else_=other)
    return select(func.sum(fits)).where(*where)


def _no_room(
    tx: Transaction, image: Image, instance_type: InstanceType, zone: str, wanted: int
) -> NoValidHost | ZoneNotFound:
    """Why there is not enough: now every host is looked at."""
    hosts = tx.session.execute(select(*_COLUMNS)).all()
    if zone and all(h.zone != zone for h in hosts):
        return ZoneNotFound(id=zone)
    rejected: Counter[str] = Counter()
    room = 0
    for host in hosts:
        why = _refusal(host, image, zone)
        fits = 0 if why else _fits(host, instance_type)
        room += fits
        if not fits:
            rejected[why or "too little free capacity"] += 1
    parts = [f"{n} of {len(hosts)} hosts: {why}" for why, n in rejected.most_common()]
    if room:
        others = len(hosts) - rejected.total()
        parts.append(f"{others} of them {'has' if others == 1 else 'have'} room for {room}")
    return NoValidHost(
        count=wanted,
        vcpus=instance_type.vcpus,
        memory_mib=instance_type.memory_mib,
        disk_gib=instance_type.disk_gib,
        rejected=", ".join(parts) or "there is no host",
    )


_COLUMNS: tuple[Any, ...] = (
    Host.up,
    Host.mode,
    Host.zone,
    Host.architecture,
    Host.hypervisor,
    (Host.vcpus_limit - Host.vcpus_used).label("vcpus_free"),
    (Host.memory_limit_mib - Host.memory_used_mib).label("memory_free_mib"),
    (Host.disk_limit_gib - Host.disk_used_gib).label("disk_free_gib"),
    Host.guest_overhead_mib,
)


def _refusal(host: Row[Any], image: Image, zone: str) -> str:
    if not host.up:
        return "down"
    if host.mode != HostMode.READY:
        return str(host.mode).lower()
    if zone and host.zone != zone:
        return f"not in zone {zone}"
    if host.architecture != image.architecture:
        return f"not {image.architecture}"
    if image.hypervisor and host.hypervisor != image.hypervisor:
        return f"not {image.hypervisor}"
    return ""


def _fits(host: Row[Any], instance_type: InstanceType) -> int:
    fits: int = min(
        host.vcpus_free // instance_type.vcpus,
        host.memory_free_mib // (instance_type.memory_mib + host.guest_overhead_mib),
        host.disk_free_gib // instance_type.disk_gib if instance_type.disk_gib else 10**9,
    )
    return max(0, fits)
