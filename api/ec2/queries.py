"""What the Describe actions read, in a number of statements that does not grow with what they find."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Row, Select, and_, or_, select

from controller.db.bulk import among
from controller.db.models import Host, Image, Instance, Lease, PlacementGroup, Reservation, Tag
from controller.domain.instances import ShutdownBehavior
from controller.operations.cloud import Transaction
from controller.operations.instances.launch import Launched, LaunchRequest
from controller.operations.instances.locking import LockedInstance

_NO_TAGS: Mapping[str, str] = {}
_NO_LEASE = ("", "")
# Up to so many rows, what belongs to them is looked up by their ids; beyond, by their project.
_BY_IDS = 1000


@dataclass(frozen=True)
class Position:
    """Where an instance stands in the one order of all lists; it never changes while the instance lives."""

    created_at: datetime
    reservation_id: str
    launch_index: int


@dataclass(frozen=True, slots=True)
class InstanceRow:
    """An instance with what is looked up elsewhere; ``row`` has the columns of ``_COLUMNS``."""

    row: Row[Any] | SimpleNamespace
    ip: str
    dns_name: str
    tags: Mapping[str, str]

    @property
    def position(self) -> Position:
        """Where it stands in the list."""
        return Position(self.row.created_at, self.row.reservation_id, self.row.launch_index)


_COLUMNS: tuple[Any, ...] = (
    Instance.id,
    Instance.reservation_id,
    Instance.launch_index,
    Instance.project_id,
    Instance.state,
    Instance.state_since,
    Instance.reason_code,
    Instance.reason,
    Instance.image_id,
    Instance.instance_type,
    Instance.vcpus,
    Instance.key_name,
    Instance.zone,
    Instance.network_id,
    Instance.host_id,
    Instance.created_at,
    Reservation.client_token,
    Image.architecture,
    Host.zone.label("host_zone"),
    Host.hypervisor,
    PlacementGroup.name.label("group_name"),
)

# The one order of all lists.
_ORDER = (Instance.created_at, Instance.reservation_id, Instance.launch_index)
_HELD = tuple(c.key for c in _COLUMNS if c.key in LockedInstance.__slots__)


def instances(
    tx: Transaction,
    project_id: str,
    *,
    ids: Sequence[str] | None = None,
    after: Position | None = None,
    limit: int | None = None,
) -> list[InstanceRow]:
    """A project's instances in the order of the lists; deleted ones for a while. Three statements."""
    visible = tx.now - timedelta(seconds=tx.settings.api.deleted_visible_s)
    where = [or_(Instance.deleted_at.is_(None), Instance.deleted_at > visible)]
    if ids is not None:
        where.append(among(Instance.id, ids))
    if after is not None:
        where.append(_comes_after(after))
    query = _select(project_id)
    if limit is None:
        return _described(tx, project_id, query.where(*where))
    # The page first, then what belongs to it: a planner that takes a list for short would join all of it.
    mine = Instance.project_id == project_id
    page = select(Instance.id).where(mine, *where).order_by(*_ORDER).limit(limit).subquery()
    return _described(tx, project_id, query.join(page, page.c.id == Instance.id))


def instances_of(tx: Transaction, project_id: str, reservation_id: str) -> list[InstanceRow]:
    """All instances of a reservation, those deleted long ago too. Three statements."""
    return _described(tx, project_id, _select(project_id).where(Instance.reservation_id == reservation_id))


def just_launched(launched: Launched, request: LaunchRequest) -> list[InstanceRow]:
    """The instances of a request that was accepted now, as ``instances_of`` would find them. No statement."""
    alike = {
        "reason_code": "",
        "reason": "",
        "key_name": request.key_name,
        "created_at": launched.reservation.created_at,
        "client_token": launched.reservation.client_token,
        "architecture": launched.image.architecture,
        "host_zone": None,
        "hypervisor": None,
        "group_name": request.group_name or None,
    }
    tags = dict(request.tags)
    return [
        InstanceRow(SimpleNamespace(**alike, **{n: getattr(i, n) for n in _HELD}), *_NO_LEASE, tags)
        for i in launched.instances
    ]


def tags_of(tx: Transaction, project_id: str, kind: str, ids: Sequence[str] | None = None) -> dict[str, dict[str, str]]:
    """The tags of a project's resources of one kind: resource id -> key -> value."""
    query = select(Tag.resource_id, Tag.key, Tag.value).where(Tag.project_id == project_id, Tag.resource_type == kind)
    if ids is not None:
        query = query.where(among(Tag.resource_id, ids))
    found: dict[str, dict[str, str]] = {}
    for resource_id, key, value in tx.session.execute(query.order_by(Tag.resource_id, Tag.key)):
        found.setdefault(resource_id, {})[key] = value
    return found


def user_data(tx: Transaction, reservation_id: str) -> str:
    """What a reservation was launched with, in base64."""
    return tx.session.scalar(select(Reservation.user_data).where(Reservation.id == reservation_id)) or ""


def shutdown_behavior(tx: Transaction, instance_id: str) -> str:
    """What becomes of an instance that powers itself off."""
    query = select(Instance.shutdown_behavior).where(Instance.id == instance_id)
    return tx.session.scalar(query) or ShutdownBehavior.STOP


def zones(tx: Transaction) -> dict[str, bool]:
    """Every zone that a host is in, or would be in, and whether a host of it is up."""
    found = {tx.settings.api.zone: False}
    for zone, up in tx.session.execute(select(Host.zone, Host.up).distinct()):
        found[zone] = found.get(zone, False) or up
    return dict(sorted(found.items()))


def architectures(tx: Transaction) -> list[str]:
    """The architectures of the hosts."""
    return list(tx.session.scalars(select(Host.architecture).distinct().order_by(Host.architecture)))


def _select(project_id: str) -> Select[Any]:
    return (
        select(*_COLUMNS)
        .join(Reservation, Reservation.id == Instance.reservation_id)
        .join(Image, Image.id == Instance.image_id)
        .outerjoin(Host, Host.id == Instance.host_id)
        .outerjoin(PlacementGroup, PlacementGroup.id == Instance.group_id)
        .where(Instance.project_id == project_id)
        .order_by(*_ORDER)
    )


def _comes_after(position: Position) -> Any:
    at, reservation, index = Instance.created_at, Instance.reservation_id, Instance.launch_index
    same_request = and_(reservation == position.reservation_id, index > position.launch_index)
    same_moment = and_(at == position.created_at, or_(reservation > position.reservation_id, same_request))
    return and_(at >= position.created_at, or_(at > position.created_at, same_moment))


def _described(tx: Transaction, project_id: str, query: Select[Any]) -> list[InstanceRow]:
    rows = tx.session.execute(query).all()
    if not rows:
        return []
    ids = [r.id for r in rows] if len(rows) <= _BY_IDS else None
    leases = _leases(tx, project_id, ids)
    tags = tags_of(tx, project_id, "instance", ids)
    return [InstanceRow(r, *leases.get(r.id, _NO_LEASE), tags.get(r.id, _NO_TAGS)) for r in rows]


def _leases(tx: Transaction, project_id: str, ids: Sequence[str] | None) -> dict[str, tuple[str, str]]:
    """The first address of each instance, and the name of its lease."""
    query = select(Lease.instance_id, Lease.ip, Lease.dns_name).order_by(Lease.id.desc())
    if ids is None:
        query = query.join(Instance, Instance.id == Lease.instance_id).where(Instance.project_id == project_id)
    else:
        query = query.where(among(Lease.instance_id, ids))
    return {instance_id: (ip, name) for instance_id, ip, name in tx.session.execute(query) if instance_id is not None}
