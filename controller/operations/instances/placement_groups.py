"""Placement groups: which instances want to be together, or apart."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, func, select

from controller.db.models import Instance, PlacementGroup
from controller.domain.checks import check_all_found, check_name
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

_NO_TAGS: Mapping[str, str] = {}


@dataclass(frozen=True)
class PlacementGroupView:
    """A placement group with its tags; ``strategy`` is a ``GroupStrategy``."""

    id: str
    project_id: str
    name: str
    strategy: str
    tags: Mapping[str, str]


def create_placement_group(
    tx: Transaction, project_id: str, name: str, strategy: str, with_tags: Mapping[str, str] = _NO_TAGS
) -> PlacementGroupView:
    """A new group; its strategy never changes.

    Raises:
        PlacementGroupExists, InvalidParameter
    """
    check_name("group_name", name)
    if strategy not in set(GroupStrategy):
        raise InvalidParameter(
            parameter="strategy", value=strategy[:40], reason=f"it must be {' or '.join(GroupStrategy)}"
        )
    if tx.session.scalar(select(PlacementGroup.id).where(*_requested(project_id, name))):
        raise PlacementGroupExists(kind="placement group", id=name)
    row = PlacementGroup(
        id=tx.ids.new(PLACEMENT_GROUP), project_id=project_id, name=name, strategy=strategy, created_at=tx.now
    )
    tx.session.add(row)
    tx.session.flush()
    tags.tag_new(tx, project_id, [row.id], with_tags)
    return _view(row, with_tags)


def list_placement_groups(
    tx: Transaction, project_id: str, *, names: Collection[str] = (), ids: Collection[str] = ()
) -> Sequence[PlacementGroupView]:
    """The groups of a project, by name; with names or ids only those. Two statements.

    Raises:
        PlacementGroupNotFound: one of them is not the project's.
    """
    query = select(PlacementGroup).where(PlacementGroup.project_id == project_id).order_by(PlacementGroup.name)
    rows = tx.session.scalars(query).all()
    tagged = tags.tags_of(tx, project_id, "placement-group")
    check_all_found(names, {row.name for row in rows}, PlacementGroupNotFound)
    check_all_found(ids, {row.id for row in rows}, PlacementGroupNotFound)
    chosen = [row for row in rows if row.name in names or row.id in ids] if names or ids else rows
    return [_view(row, tagged.get(row.id, _NO_TAGS)) for row in chosen]


def delete_placement_group(tx: Transaction, project_id: str, name: str) -> None:
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


def _view(row: PlacementGroup, with_tags: Mapping[str, str]) -> PlacementGroupView:
    return PlacementGroupView(row.id, row.project_id, row.name, row.strategy, with_tags)


def _requested(project_id: str, name: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return PlacementGroup.project_id == project_id, PlacementGroup.name == name
