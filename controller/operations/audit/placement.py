"""Promise 6: an instance is where it may be, by its lease's pins, its host's MAC addresses and its group."""

from sqlalchemy import and_, exists, func, or_, select

from controller.db.models import Instance, Lease, LeasePin, Network, PlacementGroup
from controller.domain.networks import NetworkKind
from controller.domain.placement_groups import GroupStrategy
from controller.domain.states import DELETED_BY_OWNER, PLACED
from controller.operations.audit.violation import Violation
from controller.operations.cloud import Transaction
from controller.operations.hosts.macs import mac_disagreements

# On its way out, an instance may share its host with the one that comes in its place.
_STAYING = tuple(s for s in PLACED if s not in DELETED_BY_OWNER)


def pins(tx: Transaction) -> list[Violation]:
    """A lease with pins is used on one of its hosts only."""
    any_pin = exists().where(LeasePin.lease_id == Lease.id)
    this_pin = exists().where(LeasePin.lease_id == Lease.id, LeasePin.host_id == Instance.host_id)
    rows = tx.session.execute(
        select(Lease.ip, Instance.id, Instance.host_id)
        .join(Instance, Instance.id == Lease.instance_id)
        .join(Network, Network.id == Lease.network_id)
        .where(
            Instance.host_id.is_not(None),
            or_(and_(Network.kind == NetworkKind.PINNED, ~this_pin), and_(any_pin, ~this_pin)),
        )
    )
    advice = "terminate it and launch it again, or import the lease with this host among its pins"
    return [Violation(6, f"it is on {host}, its lease {ip} is not pinned there", i, advice) for ip, i, host in rows]


def pinned_nowhere(tx: Transaction) -> list[Violation]:
    """A lease of a pinned network has a host."""
    rows = tx.session.execute(
        select(Lease.ip, Network.id)
        .join(Network, Network.id == Lease.network_id)
        .where(Network.kind == NetworkKind.PINNED, ~exists().where(LeasePin.lease_id == Lease.id))
    )
    advice = "no instance can ever have it: import it again with its hosts"
    return [Violation(6, f"its lease in {network} is pinned to no host", ip, advice) for ip, network in rows]


def macs(tx: Transaction) -> list[Violation]:
    """What hosts are allowed to carry and what is pinned to them agree."""
    advice = "correct the host's list or import the leases again; see `pileus host show`"
    return [Violation(6, str(d), f"host {d.host_id}", advice) for d in mac_disagreements(tx)]


def spread(tx: Transaction) -> list[Violation]:
    """Of a spread group no two are on one host."""
    rows = tx.session.execute(
        select(Instance.group_id, Instance.host_id, func.count())
        .join(PlacementGroup, PlacementGroup.id == Instance.group_id)
        .where(
            PlacementGroup.strategy == GroupStrategy.SPREAD,
            Instance.host_id.is_not(None),
            Instance.state.in_(_STAYING),
        )
        .group_by(Instance.group_id, Instance.host_id)
        .having(func.count() > 1)
    )
    advice = "terminate all but one of them there and launch them again"
    return [
        Violation(6, f"{count} of the spread group are on {host}", group or "", advice) for group, host, count in rows
    ]


CHECKS = (pins, pinned_nowhere, macs, spread)
