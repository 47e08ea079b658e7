"""The history of an instance: what happened to it, when, and the state after each event."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select

from controller.db.bulk import insert_rows
from controller.db.models import Claim, Instance, InstanceEvent, Lease
from controller.domain.errors import InstanceNotFound
from controller.operations.cloud import Transaction
from controller.operations.instances.locking import LockedInstance
from controller.operations.instances.views import InstanceView, select_views

# The text of an event: the same for all instances, or made for each.
Detail = str | Callable[[Any], str]


@dataclass(frozen=True)
class InstanceHistory:
    """An instance (without its tags) and its events; ``overhead_mib`` is what its host has promised beside the
    instance's own memory."""

    instance: InstanceView
    events: Sequence[InstanceEvent]
    overhead_mib: int = 0


def record_event(
    tx: Transaction, instances: Iterable[LockedInstance | Instance], event: str, detail: Detail = ""
) -> None:
    """Add an event to the history of each instance."""
    text = detail if callable(detail) else lambda _: detail
    events = [
        {"instance_id": i.id, "at": tx.now, "event": str(event), "state": str(i.state), "detail": text(i)}
        for i in instances
    ]
    insert_rows(tx.session, InstanceEvent.__table__, events)


def explain(tx: Transaction, instance_id: str) -> InstanceHistory:
    """The whole history of an instance, also of a deleted one as long as it has a row. Raises InstanceNotFound."""
    row = tx.session.execute(select_views().where(Instance.id == instance_id)).one_or_none()
    if row is None:
        raise InstanceNotFound(id=instance_id)
    first = select(Lease.ip, Lease.mac, Lease.dns_name).where(Lease.instance_id == instance_id).order_by(Lease.id)
    lease = tx.session.execute(first.limit(1)).one_or_none()
    events = tx.session.scalars(
        select(InstanceEvent).where(InstanceEvent.instance_id == instance_id).order_by(InstanceEvent.id)
    ).all()
    overhead_mib = tx.session.scalar(select(func.sum(Claim.overhead_mib)).where(Claim.instance_id == instance_id))
    return InstanceHistory(InstanceView(*row, *(lease or ())), events, int(overhead_mib or 0))
