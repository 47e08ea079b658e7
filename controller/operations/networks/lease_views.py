"""Leases as an operator looks at them: which instance holds an address, and why one is not free."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import select

from controller.db.models import Instance, Lease, Network
from controller.operations.cloud import Transaction


class LeaseState(StrEnum):
    """What an address is; an address that was never given out has no lease."""

    USED = "USED"  # an instance holds it
    QUARANTINE = "QUARANTINE"  # a guest of a host that was removed may still use it
    RESTING = "RESTING"  # given back, but DHCP may still remember its last holder
    FREE = "FREE"


@dataclass(frozen=True)
class LeaseView:
    """A lease; ``instance_id`` and ``host_id`` are its holder's, or those that it is in quarantine because of."""

    ip: str
    mac: str
    name: str
    network_id: str
    network: str
    state: LeaseState
    instance_id: str | None
    host_id: str | None
    project_id: str | None
    released_at: datetime | None
    free_after: datetime | None


def list_leases(
    tx: Transaction, *, network_id: str = "", ip: str = "", state: LeaseState | None = None
) -> list[LeaseView]:
    """The leases of one network, of one address, in one state, or all; by network."""
    query = (
        select(Lease, Network.name, Instance.host_id, Instance.project_id)
        .join(Network, Network.id == Lease.network_id)
        .outerjoin(Instance, Instance.id == Lease.instance_id)
        .order_by(Network.name, Network.id, Lease.id)
    )
    if network_id:
        query = query.where(Lease.network_id == network_id)
    if ip:
        query = query.where(Lease.ip == ip)
    found = [_view(tx, *row) for row in tx.session.execute(query)]
    return [v for v in found if state in (None, v.state)]


def _view(tx: Transaction, lease: Lease, network: str, host_id: str | None, project_id: str | None) -> LeaseView:
    state = _state(lease, tx.now)
    instance_id = lease.instance_id
    if state is LeaseState.QUARANTINE:
        instance_id, host_id = lease.quarantine_instance, lease.quarantine_host
    return LeaseView(
        ip=lease.ip,
        mac=lease.mac,
        name=lease.dns_name,
        network_id=lease.network_id,
        network=network,
        state=state,
        instance_id=instance_id,
        host_id=host_id,
        project_id=project_id,
        released_at=lease.released_at,
        free_after=lease.free_after,
    )


def _state(lease: Lease, now: datetime) -> LeaseState:
    if lease.instance_id is not None:
        return LeaseState.USED
    if lease.quarantine_host is not None:
        return LeaseState.QUARANTINE
    if lease.free_after is not None and lease.free_after > now:
        return LeaseState.RESTING
    return LeaseState.FREE
