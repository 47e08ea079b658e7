"""Instances: what doors and commands ask of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, or_, select, update

from controller.db.bulk import among
from controller.db.models import Claim, Instance, InstanceEvent, Lease
from controller.domain.errors import IncorrectInstanceState, InstanceNotFound
from controller.domain.states import Event, State, allows
from controller.operations.cloud import Transaction
from controller.operations.instances.launch import MAX_COUNT, LaunchRequest, check_shutdown_behavior, launch
from controller.operations.instances.locking import LockedInstance
from controller.operations.instances.transitions import doorbells, lock_instances, transition

__all__ = [
    "MAX_COUNT",
    "Explanation",
    "InstanceView",
    "LaunchRequest",
    "explain",
    "get_instance",
    "launch",
    "list_instances",
    "reboot",
    "set_shutdown_behavior",
    "start",
    "stop",
    "terminate",
]


@dataclass(frozen=True)
class InstanceView:
    """An instance with what is looked up elsewhere; ``ip`` and ``mac`` are empty while there is no lease."""

    instance: Instance
    ip: str
    mac: str


@dataclass(frozen=True)
class Explanation:
    """The whole story of an instance; ``overhead_mib`` is what its host has promised beside its own memory."""

    instance: Instance
    ip: str
    steps: Sequence[InstanceEvent]
    overhead_mib: int = 0


def start(
    tx: Transaction, project_id: str | None, ids: Sequence[str], *, by: str = ""
) -> list[tuple[LockedInstance, State]]:
    """Start stopped instances; running ones are left alone. Answers with each one's state before."""
    return _request(tx, project_id, ids, Event.START, by, settled=(State.ACTIVE, State.STARTING))


def stop(
    tx: Transaction, project_id: str | None, ids: Sequence[str], *, by: str = ""
) -> list[tuple[LockedInstance, State]]:
    """Stop running instances; stopped ones are left alone. Answers with each one's state before."""
    return _request(tx, project_id, ids, Event.STOP, by, settled=(State.STOPPED, State.STOPPING))


def reboot(
    tx: Transaction, project_id: str | None, ids: Sequence[str], *, by: str = ""
) -> list[tuple[LockedInstance, State]]:
    """Restart running instances. Answers with each one's state before."""
    return _request(tx, project_id, ids, Event.REBOOT, by, settled=(State.REBOOTING,))


def terminate(
    tx: Transaction, project_id: str | None, ids: Sequence[str], *, by: str = ""
) -> list[tuple[LockedInstance, State]]:
    """Delete instances in whatever state they are; twice is once. Answers with each one's state before."""
    answer = _request(tx, project_id, ids, Event.DELETE, by, settled=(State.DELETED, State.DELETING))
    nowhere = [i for i, _ in answer if i.state == State.DELETING and i.host_id is None]
    transition(tx, nowhere, Event.GONE, detail="no host had it")
    return answer


def set_shutdown_behavior(tx: Transaction, project_id: str | None, instance_id: str, behavior: str) -> None:
    """Say what is to become of an instance when its guest powers itself off.

    Raises:
        InvalidParameter: there is no such behavior. InstanceNotFound. IncorrectInstanceState: it is deleted.
    """
    check_shutdown_behavior(behavior)
    instance = next(iter(lock_instances(tx, [instance_id])), None)
    if instance is None or project_id not in (None, instance.project_id):
        raise InstanceNotFound(id=instance_id)
    if instance.state in (State.DELETING, State.DELETED):
        raise IncorrectInstanceState(state=f"{instance.state} ({instance_id})", event="a change of its attributes")
    row = update(Instance).where(Instance.id == instance_id).values(shutdown_behavior=behavior)
    tx.session.execute(row.execution_options(synchronize_session=False))


def list_instances(
    tx: Transaction, project_id: str | None = None, ids: Sequence[str] | None = None
) -> list[InstanceView]:
    """Instances with their addresses, oldest first; None: of all projects. Deleted ones for a while."""
    visible = tx.now - timedelta(seconds=tx.settings.api.deleted_visible_s)
    query = (
        select(Instance, Lease.ip, Lease.mac)
        .outerjoin(Lease, Lease.instance_id == Instance.id)
        .where(or_(Instance.deleted_at.is_(None), Instance.deleted_at > visible))
        .order_by(Instance.created_at, Instance.reservation_id, Instance.launch_index)
    )
    if project_id is not None:
        query = query.where(Instance.project_id == project_id)
    if ids is not None:
        query = query.where(among(Instance.id, ids))
    return [InstanceView(i, ip or "", mac or "") for i, ip, mac in tx.session.execute(query)]


def get_instance(tx: Transaction, project_id: str | None, instance_id: str) -> InstanceView:
    """One instance. Raises InstanceNotFound, also for one of another project."""
    found = list_instances(tx, project_id, [instance_id])
    if not found:
        raise InstanceNotFound(id=instance_id)
    return found[0]


def explain(tx: Transaction, instance_id: str) -> Explanation:
    """The whole story of an instance, also of a deleted one. Raises InstanceNotFound."""
    instance = tx.session.get(Instance, instance_id)
    if instance is None:
        raise InstanceNotFound(id=instance_id)
    ip = tx.session.scalar(select(Lease.ip).where(Lease.instance_id == instance_id))
    steps = tx.session.scalars(
        select(InstanceEvent).where(InstanceEvent.instance_id == instance_id).order_by(InstanceEvent.id)
    ).all()
    overhead_mib = tx.session.scalar(select(func.sum(Claim.overhead_mib)).where(Claim.instance_id == instance_id))
    return Explanation(instance, ip or "", steps, int(overhead_mib or 0))


def _request(
    tx: Transaction, project_id: str | None, ids: Sequence[str], event: Event, by: str, settled: Sequence[State]
) -> list[tuple[LockedInstance, State]]:
    """Apply a user's wish to all of these, or, where the table forbids it for one, to none.

    ``by`` is whose wish it is, for the instances' stories.
    """
    locked = {i.id: i for i in lock_instances(tx, sorted(set(ids)))}
    for instance_id in ids:
        instance = locked.get(instance_id)
        if instance is None or project_id not in (None, instance.project_id):
            raise InstanceNotFound(id=instance_id)
    before = {i.id: i.state for i in locked.values()}
    moving = [i for i in locked.values() if before[i.id] not in settled]
    for instance in moving:
        if not allows(before[instance.id], event):
            raise IncorrectInstanceState(state=f"{before[instance.id]} ({instance.id})", event=event)
    transition(tx, moving, event, detail=f"asked for by {by}" if by else "asked for", new_generation=True)
    tx.outbox += doorbells(tx, moving)
    return [(locked[i], before[i]) for i in dict.fromkeys(ids)]
