"""Networks of the projects: a VLAN id and a CIDR each, allocated without a race."""

from collections.abc import Sequence

import netaddr
from sqlalchemy import bindparam, delete, func, or_, select, update

from controller.db.bulk import among
from controller.db.models import Cloud, Instance, Lease, LeasePin, Network
from controller.domain.checks import check_name
from controller.domain.errors import (
    AlreadyExists,
    CidrOverlaps,
    ConfigurationError,
    Conflict,
    Exhausted,
    InUse,
    InvalidParameter,
    NetworkNotFound,
    NoFreeVlan,
)
from controller.domain.ids import NETWORK
from controller.domain.messages import PrepareNetworks
from controller.domain.networks import NetworkKind
from controller.domain.states import State
from controller.operations.cloud import Transaction
from controller.operations.networks.leases import FIRST_OFFSET, end_offset, gateway, is_free

DEFAULT_NAME = "default"
_MAX_NUMBER = 0xFFFF
# Prefix lengths of a network. A MAC address has two bytes for the address within it.
_LARGEST, _SMALLEST = 16, 28
# Part of every launch, so it is built once.
_DEFAULT = select(Network).where(Network.project_id == bindparam("project"), Network.name == DEFAULT_NAME)


def list_networks(tx: Transaction) -> Sequence[Network]:
    """All networks, by VLAN."""
    return tx.session.scalars(select(Network).order_by(Network.physical_network, Network.vlan)).all()


def get_network(tx: Transaction, network_id: str) -> Network:
    """One network. Raises NetworkNotFound."""
    network = tx.session.get(Network, network_id)
    if network is None:
        raise NetworkNotFound(id=network_id)
    return network


def find_network(tx: Transaction, id_or_name: str) -> Network:
    """The network of this id, or else the only one of this name.

    Raises:
        NetworkNotFound. Conflict: several have the name.
    """
    found = tx.session.get(Network, id_or_name)
    if found is not None:
        return found
    named = tx.session.scalars(select(Network).where(Network.name == id_or_name).order_by(Network.id)).all()
    if not named:
        raise NetworkNotFound(id=id_or_name)
    if len(named) > 1:
        raise Conflict(reason=f"Several networks are called '{id_or_name}': {', '.join(n.id for n in named)}")
    return named[0]


def usable_networks(tx: Transaction, project_id: str) -> Sequence[Network]:
    """The networks that a project may launch in: its own, and those of no project."""
    mine = or_(Network.project_id == project_id, Network.project_id.is_(None))
    return tx.session.scalars(select(Network).where(mine).order_by(Network.created_at, Network.id)).all()


def usable_network(tx: Transaction, project_id: str, network_id: str = "") -> Network:
    """One of ``usable_networks``, or without an id the project's default. Raises NetworkNotFound."""
    if not network_id:
        return ensure_project_network(tx, project_id)
    network = get_network(tx, network_id)
    if network.project_id not in (None, project_id):
        raise NetworkNotFound(id=network_id)
    return network


def free_addresses_of(tx: Transaction, networks: Sequence[Network]) -> dict[str, int]:
    """How many guests each of these networks can take right now, by its id; one statement."""
    query = select(Lease.network_id, func.count().label("free")).where(
        among(Lease.network_id, [n.id for n in networks]), is_free(tx.now)
    )
    released = {row.network_id: row.free for row in tx.session.execute(query.group_by(Lease.network_id))}
    return {n.id: max(0, end_offset(n.cidr) - n.next_offset) + released.get(n.id, 0) for n in networks}


def ensure_project_network(tx: Transaction, project_id: str) -> Network:
    """The project's default network; the first launch creates it."""
    found = tx.session.scalar(_DEFAULT, {"project": project_id})
    if found is None:
        _lock_networks(tx)
        found = tx.session.scalar(_DEFAULT, {"project": project_id})  # another transaction may have made it
    return found or create_network(tx, project_id, DEFAULT_NAME)


def create_network(
    tx: Transaction,
    project_id: str | None,
    name: str,
    cidr: str | None = None,
    vlan: int | None = None,
    kind: NetworkKind = NetworkKind.POOLED,
) -> Network:
    """Create a network; what is not given is allocated: the lowest free VLAN id, the first free range of the pool.

    A pinned one has no leases before they are imported.

    Raises:
        InvalidParameter, AlreadyExists, CidrOverlaps, NoFreeVlan, Exhausted
    """
    check_name("name", name)
    _lock_networks(tx)
    existing = list_networks(tx)
    if any(n.project_id == project_id and n.name == name for n in existing):
        raise AlreadyExists(kind="network", id=name)
    given = _given_cidr(existing, cidr) if cidr else _free_cidr(tx, existing)
    network = Network(
        id=tx.ids.new(NETWORK),
        number=_number(tx, existing),
        project_id=project_id,
        name=name,
        physical_network=tx.settings.network.physical_network,
        vlan=_vlan(tx, existing, vlan),
        cidr=given,
        # Of a pinned network no address is made: those that are imported are all it has.
        next_offset=FIRST_OFFSET if kind is NetworkKind.POOLED else end_offset(given),
        kind=kind,
        created_at=tx.now,
    )
    tx.session.add(network)
    tx.outbox.append(PrepareNetworks((network.id,)))
    return network


def resize_network(tx: Transaction, network_id: str, cidr: str) -> Network:
    """Let a network grow to a larger range that begins where the present one does: gateway, addresses and MAC addresses
    stay what they are. Its own range changes nothing.

    Raises:
        NetworkNotFound. InvalidParameter: not a range, or not one that the network can grow to.
        CidrOverlaps. Conflict: it would make MAC addresses that leases of a pinned network have.
    """
    _lock_networks(tx)
    network = get_network(tx, network_id)
    # No address is claimed meanwhile; the lock's answer is the newest row.
    tx.session.refresh(network, with_for_update={"key_share": True})
    others = [n for n in list_networks(tx) if n.id != network.id]
    given = _given_cidr(others, cidr)
    if given == network.cidr:
        return network
    _check_growth(network, given)
    if network.kind == NetworkKind.POOLED:
        _check_new_macs(tx, network, given)
    else:
        network.next_offset = end_offset(given)  # as before, no address is made
    network.cidr = given
    tx.outbox.append(PrepareNetworks((network.id,)))
    return network


def delete_network(tx: Transaction, network_id: str) -> None:
    """Delete a network that no instance uses.

    Raises:
        NetworkNotFound, InUse
    """
    _lock_networks(tx)
    network = get_network(tx, network_id)
    users = tx.session.scalar(
        select(func.count())
        .select_from(Instance)
        .where(Instance.network_id == network_id, Instance.state != State.DELETED)
    )
    rows = tx.session.scalar(select(func.count()).select_from(Instance).where(Instance.network_id == network_id))
    if users:
        raise InUse(kind="network", id=network_id, user=f"{users} instances")
    if rows:
        raise InUse(kind="network", id=network_id, user=f"{rows} deleted instances that are still described")
    kept = select(func.count()).where(Lease.network_id == network_id, Lease.quarantine_host.is_not(None))
    if count := tx.session.scalar(kept):
        raise InUse(kind="network", id=network_id, user=f"{count} guests that may still run on a removed host")
    leases = select(Lease.id).where(Lease.network_id == network_id)
    tx.session.execute(delete(LeasePin.__table__).where(LeasePin.lease_id.in_(leases)))  # type: ignore[arg-type]
    tx.session.execute(delete(Lease.__table__).where(Lease.network_id == network_id))  # type: ignore[arg-type]
    tx.session.delete(network)
    tx.outbox.append(PrepareNetworks((network_id,)))


def _lock_networks(tx: Transaction) -> None:
    """Take the cloud's row lock: no UNIQUE can say that two ranges do not overlap."""
    tx.session.execute(update(Cloud).values(network_epoch=Cloud.network_epoch + 1))


def _number(tx: Transaction, existing: Sequence[Network]) -> int:
    """The lowest number that no network has, and whose MAC addresses no imported lease has."""
    taken = {n.number for n in existing}
    if any(n.kind == NetworkKind.PINNED for n in existing):
        beginnings = select(func.substr(Lease.mac, 7, 5)).where(Lease.mac.like("52:54:%")).distinct()
        taken |= {int(b.replace(":", ""), 16) for b in tx.session.scalars(beginnings)}
    number = next((n for n in range(1, _MAX_NUMBER + 1) if n not in taken), None)
    if number is None:
        raise Exhausted(kind="network numbers")
    return number


def _vlan(tx: Transaction, existing: Sequence[Network], wanted: int | None) -> int:
    conf = tx.settings.network
    taken = {n.vlan for n in existing if n.physical_network == conf.physical_network}
    if wanted is None:
        free = next((v for v in range(conf.vlan_first, conf.vlan_last + 1) if v not in taken), None)
        if free is None:
            raise NoFreeVlan(first=conf.vlan_first, last=conf.vlan_last, physical_network=conf.physical_network)
        return free
    if not 1 <= wanted <= 4094:
        raise InvalidParameter(parameter="vlan", value=wanted, reason="a VLAN id is between 1 and 4094")
    if wanted in taken:
        raise AlreadyExists(kind="VLAN", id=wanted)
    return wanted


def _given_cidr(existing: Sequence[Network], cidr: str) -> str:
    try:
        wanted = netaddr.IPNetwork(cidr)
    except (netaddr.AddrFormatError, ValueError) as error:
        raise InvalidParameter(parameter="cidr", value=cidr, reason="not a CIDR such as 10.1.0.0/24") from error
    if wanted.version != 4 or not _LARGEST <= wanted.prefixlen <= _SMALLEST:
        reason = f"it must be IPv4, between /{_LARGEST} and /{_SMALLEST}"
        raise InvalidParameter(parameter="cidr", value=cidr, reason=reason)
    if wanted.ip != wanted.network:
        raise InvalidParameter(parameter="cidr", value=cidr, reason=f"it has host bits set; {wanted.cidr} has none")
    if (
        wanted.is_multicast()
        or wanted.is_loopback()
        or wanted.is_link_local()
        or wanted in netaddr.IPNetwork("0.0.0.0/8")
    ):
        raise InvalidParameter(parameter="cidr", value=cidr, reason="no guest can have such an address")
    for network in existing:
        if _overlap(wanted, netaddr.IPNetwork(network.cidr)):
            raise CidrOverlaps(cidr=cidr, other=network.cidr, network=network.name)
    return str(wanted.cidr)


def _check_growth(network: Network, given: str) -> None:
    present, wanted = netaddr.IPNetwork(network.cidr), netaddr.IPNetwork(given)
    reason = ""
    if present not in wanted:
        smaller = "it is smaller than" if wanted in present else "it does not contain"
        reason = f"{smaller} {network.cidr}, and a network can only grow"
    elif wanted.first != present.first:
        largest = next(s for n in range(_LARGEST, 33) if (s := netaddr.IPNetwork(f"{present.ip}/{n}")).ip == s.network)
        reason = (
            f"it begins before {network.cidr}, so the gateway would no longer be {gateway(network.cidr)}; "
            f"the largest range that begins at {present.ip} is {largest}"
        )
    if reason:
        raise InvalidParameter(parameter="cidr", value=given, reason=reason)


def _check_new_macs(tx: Transaction, network: Network, given: str) -> None:
    """No lease has an address that a larger network would make: an import looks at the size of its day only."""
    beginning = f"52:54:{network.number >> 8:02x}:{network.number & 255:02x}:"
    imported = select(Lease.mac, Lease.ip).where(Lease.mac.like(f"{beginning}%"), Lease.network_id != network.id)
    for mac, ip in tx.session.execute(imported):
        if int(mac.removeprefix(beginning).replace(":", ""), 16) < end_offset(given):
            raise Conflict(reason=f"The MAC address {mac} of the lease {ip} would be made in {given} too")


def _free_cidr(tx: Transaction, existing: Sequence[Network]) -> str:
    conf = tx.settings.network
    try:
        pool = netaddr.IPNetwork(conf.project_cidr_pool)
    except (netaddr.AddrFormatError, ValueError) as error:
        raise ConfigurationError(reason="[network] project_cidr_pool is not a CIDR") from error
    taken = [netaddr.IPNetwork(n.cidr) for n in existing]
    for candidate in pool.subnet(conf.project_prefix_length):
        if not any(_overlap(candidate, t) for t in taken):
            return str(candidate)
    raise Exhausted(kind=f"address ranges: every /{conf.project_prefix_length} of {pool} is taken")


def _overlap(one: netaddr.IPNetwork, other: netaddr.IPNetwork) -> bool:
    return bool(one.first <= other.last and other.first <= one.last)
