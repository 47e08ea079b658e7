"""Instances as doors and commands show them, read in a number of statements that does not grow with what is found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Select, and_, func, or_, select

from controller.db.bulk import among
from controller.db.models import Host, Image, Instance, Lease, PlacementGroup, Reservation
from controller.domain.checks import check_all_found
from controller.domain.errors import InstanceNotFound
from controller.operations.accounts.tags import tags_of
from controller.operations.cloud import Transaction

_NO_TAGS: Mapping[str, str] = {}
_NO_LEASE = ("", "", "")
# Up to so many rows, what belongs to them is looked up by their ids; beyond, by their project.
_BY_IDS = 1000


@dataclass(frozen=True)
class Position:
    """Where an instance stands in the one order of all lists; it never changes while the instance lives."""

    created_at: datetime
    reservation_id: str
    launch_index: int


class InstanceView(NamedTuple):
    """An instance with what is looked up elsewhere. A tuple, because a list makes thousands of them.

    ``host_zone`` and ``hypervisor`` are None without a host, ``group_name`` without a placement group; ``ip``, ``mac``
    and ``dns_name`` are those of its first lease, empty without one.
    """

    id: str
    reservation_id: str
    launch_index: int
    project_id: str
    state: str
    state_since: datetime
    reason_code: str
    reason: str
    generation: int
    image_id: str
    instance_type: str
    vcpus: int
    memory_mib: int
    disk_gib: int
    key_name: str
    zone: str
    shutdown_behavior: str
    network_id: str
    host_id: str | None
    created_at: datetime
    launched_at: datetime | None
    deleted_at: datetime | None
    client_token: str | None
    architecture: str
    host_zone: str | None
    hypervisor: str | None
    group_name: str | None
    ip: str = ""
    mac: str = ""
    dns_name: str = ""
    tags: Mapping[str, str] = _NO_TAGS

    @property
    def position(self) -> Position:
        """Where it stands in the list."""
        return Position(self.created_at, self.reservation_id, self.launch_index)


# The columns of a view, in its order: all that is not of the instance's own row, nor of its lease and tags.
_ELSEWHERE: Mapping[str, Any] = {
    "client_token": Reservation.client_token,
    "architecture": Image.architecture,
    "host_zone": Host.zone,
    "hypervisor": Host.hypervisor,
    "group_name": PlacementGroup.name,
}
_LOOKED_UP_LATER = ("ip", "mac", "dns_name", "tags")
_COLUMNS: tuple[Any, ...] = tuple(
    _ELSEWHERE[name].label(name) if name in _ELSEWHERE else getattr(Instance, name)
    for name in InstanceView._fields
    if name not in _LOOKED_UP_LATER
)
# The one order of all lists.
_ORDER = (Instance.created_at, Instance.reservation_id, Instance.launch_index)


def list_instances(
    tx: Transaction,
    project_id: str | None = None,
    ids: Sequence[str] | None = None,
    *,
    after: Position | None = None,
    limit: int | None = None,
) -> list[InstanceView]:
    """Instances in the order of the lists, the oldest first; ``project_id`` None: of all projects. Deleted ones are
    among them for ``[api] deleted_visible_s``. Three statements."""
    visible = tx.now - timedelta(seconds=tx.settings.api.deleted_visible_s)
    where = [or_(Instance.deleted_at.is_(None), Instance.deleted_at > visible)]
    if project_id is not None:
        where.append(Instance.project_id == project_id)
    if ids is not None:
        where.append(among(Instance.id, ids))
    if after is not None:
        where.append(_comes_after(after))
    query = select_views().order_by(*_ORDER)
    if limit is None:
        return _complete(tx, project_id, query.where(*where))
    # The page first, then what belongs to it: a planner that takes a list for short would join all of it.
    page = select(Instance.id).where(*where).order_by(*_ORDER).limit(limit).subquery()
    return _complete(tx, project_id, query.join(page, page.c.id == Instance.id))


def get_instances(tx: Transaction, project_id: str | None, ids: Sequence[str]) -> list[InstanceView]:
    """``list_instances`` of these ids. Raises InstanceNotFound: for one of them, also where another project has it."""
    found = list_instances(tx, project_id, ids)
    check_all_found(ids, {i.id for i in found}, InstanceNotFound)
    return found


def get_instance(tx: Transaction, project_id: str | None, instance_id: str) -> InstanceView:
    """One instance. Raises InstanceNotFound, also for one of another project."""
    (found,) = get_instances(tx, project_id, [instance_id])
    return found


def instances_of(tx: Transaction, project_id: str, reservation_id: str) -> list[InstanceView]:
    """All instances of a reservation, those deleted long ago too. Three statements."""
    mine = Instance.project_id == project_id, Instance.reservation_id == reservation_id
    return _complete(tx, project_id, select_views().where(*mine).order_by(*_ORDER))


def user_data(tx: Transaction, reservation_id: str) -> str:
    """What a reservation was launched with, in base64."""
    return tx.session.scalar(select(Reservation.user_data).where(Reservation.id == reservation_id)) or ""


def count_by_state(tx: Transaction) -> dict[str, int]:
    """How many instances there are in each state; states without any are left out."""
    counted = tx.session.execute(select(Instance.state, func.count()).group_by(Instance.state))
    return {row[0]: row[1] for row in counted}


def select_views() -> Select[Any]:
    """The columns of ``InstanceView`` in its order, less ``ip``, ``mac``, ``dns_name`` and ``tags``."""
    return (
        select(*_COLUMNS)
        .join(Reservation, Reservation.id == Instance.reservation_id)
        .join(Image, Image.id == Instance.image_id)
        .outerjoin(Host, Host.id == Instance.host_id)
        .outerjoin(PlacementGroup, PlacementGroup.id == Instance.group_id)
    )


def _comes_after(position: Position) -> Any:
    at, reservation, index = Instance.created_at, Instance.reservation_id, Instance.launch_index
    same_request = and_(reservation == position.reservation_id, index > position.launch_index)
    same_moment = and_(at == position.created_at, or_(reservation > position.reservation_id, same_request))
    return and_(at >= position.created_at, or_(at > position.created_at, same_moment))


def _complete(tx: Transaction, project_id: str | None, query: Select[Any]) -> list[InstanceView]:
    """The views of a query of ``select_views``, with their leases and tags."""
    rows = tx.session.execute(query).all()
    if not rows:
        return []
    ids = [r[0] for r in rows] if len(rows) <= _BY_IDS else None
    leases = _leases(tx, project_id, ids)
    tags = tags_of(tx, project_id, "instance", ids)
    return [InstanceView._make((*r, *leases.get(r[0], _NO_LEASE), tags.get(r[0], _NO_TAGS))) for r in rows]


def _leases(tx: Transaction, project_id: str | None, ids: Sequence[str] | None) -> dict[str, tuple[str, str, str]]:
    """The first address of each instance, its MAC, and the name of its lease."""
    query = select(Lease.instance_id, Lease.ip, Lease.mac, Lease.dns_name).order_by(Lease.id.desc())
    query = query.where(Lease.instance_id.is_not(None))
    if ids is not None:
        query = query.where(among(Lease.instance_id, ids))
    elif project_id is not None:
        query = query.join(Instance, Instance.id == Lease.instance_id).where(Instance.project_id == project_id)
    return {row[0] or "": (row[1], row[2], row[3]) for row in tx.session.execute(query)}
