"""Placement groups: which instances want to be together, or apart."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, func, select

from controller.db.models import Instance, PlacementGroup
from controller.domain.checks import check_name
from controller.domain.errors import (
    InvalidParameter,
    PlacementGroupExists,
    PlacementGroupInUse,
    PlacementGroupNotFound,
)
from controller.domain.ids import PLACEMENT_GROUP
from controller.domain.placement_groups import GroupStrategy
from controller.domain.states import State
from controller.operations.accounts import tags
from controller.operations.cloud import Transaction


def create_placement_group(tx: Transaction, project_id: str, name: str, strategy: str) -> PlacementGroup:
    """A new group; its strategy never changes.

    Raises:
        PlacementGroupExists, InvalidParameter
    """
    check_name("GroupName", name)
    if strategy not in set(GroupStrategy):
        raise InvalidParameter(
            parameter="Strategy", value=strategy[:40], reason=f"it must be {' or '.join(GroupStrategy)}"
        )
    if tx.session.scalar(select(PlacementGroup.id).where(*_requested(project_id, name))):
        raise PlacementGroupExists(kind="placement group", id=name)
    row = PlacementGroup(
        id=tx.ids.new(PLACEMENT_GROUP), project_id=project_id, name=name, strategy=strategy, created_at=tx.now
    )
    tx.session.add(row)
    tx.session.flush()
    return row


def list_placement_groups(tx: Transaction, project_id: str) -> Sequence[PlacementGroup]:
    """The groups of a project, by name."""
    query = select(PlacementGroup).where(PlacementGroup.project_id == project_id).order_by(PlacementGroup.name)
    return tx.session.scalars(query).all()


def delete_placement_group(tx: Transaction, project_id: str, name: str) -> PlacementGroup:
    """Delete a group that has no instances left.

    Raises:
        PlacementGroupNotFound, PlacementGroupInUse
    """
    # Locked against a launch into the group, which locks it too.
    row = tx.session.scalar(select(PlacementGroup).where(*_requested(project_id, name)).with_for_update())
    if row is None:
        raise PlacementGroupNotFound(id=name)
    members = tx.session.scalar(
        select(func.count()).select_from(Instance).where(Instance.group_id == row.id, Instance.state != State.DELETED)
    )
    if members:
        raise PlacementGroupInUse(kind="placement group", id=name, user=f"{members} instances")
    tx.session.delete(row)
    tags.forget(tx, [row.id])
    return row


def _requested(project_id: str, name: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return PlacementGroup.project_id == project_id, PlacementGroup.name == name
