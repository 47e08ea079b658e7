"""Force-removal of a host that will never be back: all its instances end."""

from sqlalchemy import delete, select

from controller.db.bulk import among
from controller.db.models import Host, Instance, Lease, LeasePin
from controller.domain.errors import Conflict, InUse
from controller.domain.reasons import ReasonCode
from controller.domain.states import Event
from controller.operations.cloud import Transaction
from controller.operations.hosts.fencing import missing_host
from controller.operations.hosts.hosts import remove_host
from controller.operations.instances.locking import CHUNK, chunks
from controller.operations.instances.transitions import lock_instances, transition
from controller.operations.networks import quarantine as quarantines
from controller.operations.networks.leases import quarantine


def force_remove(tx: Transaction, host_id: str, *, fenced: bool = False) -> int:
    """Remove a host that is down, and end its instances in ERROR, or DELETED if that was requested; answers how many.

    Their addresses are in quarantine until the host is seen again without their guests, or is fenced; with ``fenced``
    an operator states that now: the host is dead. If it comes back all the same, it starts no guest, and guests that
    run there are removed, without their disks (``stray_guests``). Leases pinned to other hosts, too, stay pinned to
    those.

    Raises:
        HostNotFound
        Conflict: the host is up.
        InUse: leases are pinned to it alone, or an instance is in a state that is unknown here.
    """
    host = tx.session.get(Host, host_id)
    if host is None:
        raise missing_host(tx, host_id)
    _require_down(host)
    carried = tx.session.scalars(select(Instance.id).where(Instance.host_id == host_id)).all()
    instances = [i for i in lock_instances(tx, carried) if i.host_id == host_id]
    if strange := [i for i in instances if not i.state.known]:
        user = f"{strange[0].id}, {strange[0].state}: only a newer release knows that state"
        raise InUse(kind="host", id=host_id, user=user)
    if not fenced:
        for ids in chunks([i.id for i in instances]):
            quarantine(tx, host_id, ids)
    _unpin(tx, host_id)
    transition(
        tx,
        instances,
        Event.HOST_GONE,
        detail=f"host {host_id} was force-removed, and the disk on it with it",
        reason_code=ReasonCode.HOST_FORCE_REMOVED,
    )
    if fenced:
        quarantines.lock_kept_by(tx, host_id)
    tx.session.flush()
    # The host is locked last, as in every transaction (``instances.locking``).
    tx.session.refresh(host, with_for_update=True)
    _require_down(host)
    remove_host(tx, host_id)
    tx.session.flush()
    if fenced:
        quarantines.fence(tx, host_id)
    return len(instances)


def _unpin(tx: Transaction, host_id: str) -> None:
    """Remove this host's pins from leases that are pinned to other hosts, too: an import cannot change a lease in
    use."""
    pinned = select(LeasePin.lease_id).where(LeasePin.host_id == host_id)
    ids = tx.session.scalars(select(Lease.id).where(Lease.id.in_(pinned)).order_by(Lease.id).with_for_update()).all()
    for n in range(0, len(ids), CHUNK):
        others = among(LeasePin.lease_id, ids[n : n + CHUNK]), LeasePin.host_id != host_id
        elsewhere = tx.session.scalars(select(LeasePin.lease_id).where(*others).distinct()).all()
        tx.session.execute(
            delete(LeasePin)
            .where(LeasePin.host_id == host_id, among(LeasePin.lease_id, elsewhere))
            .execution_options(synchronize_session=False)
        )


def _require_down(host: Host) -> None:
    if host.up:
        advice = "stop its agent or cut its power, and wait until `pileus host list` shows it as not up"
        raise Conflict(reason=f"Host {host.id} is up; --force removes only hosts that are down: {advice}")
