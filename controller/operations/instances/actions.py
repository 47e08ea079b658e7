"""Start, stop, reboot and terminate instances, and change their attributes."""

from collections.abc import Sequence

from sqlalchemy import update

from controller.db.models import Instance
from controller.domain.errors import IncorrectInstanceState, InstanceNotFound
from controller.domain.states import Event, State, allows
from controller.operations.cloud import Transaction
from controller.operations.instances.launch_requests import check_shutdown_behavior
from controller.operations.instances.locking import LockedInstance
from controller.operations.instances.transitions import doorbells, lock_instances, transition


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


def _request(
    tx: Transaction, project_id: str | None, ids: Sequence[str], event: Event, by: str, settled: Sequence[State]
) -> list[tuple[LockedInstance, State]]:
    """Apply a request to all of these, or, where the table of transitions forbids it for one, to none.

    ``by`` is who requests it, for the instances' histories. Instances in a ``settled`` state are left alone.
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
