"""Launching: a request is checked, counted and committed as rows; the scheduler places them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from sqlalchemy import and_, bindparam, or_, select

from controller.db.bulk import among, insert_rows
from controller.db.models import Image, Instance, InstanceType, KeyPair, Network, PlacementGroup, Project, Reservation
from controller.domain.errors import (
    IdempotentParameterMismatch,
    ImageNotFound,
    ImageUnavailable,
    InstanceTypeNotFound,
    InvalidParameter,
    KeyPairNotFound,
    PlacementGroupNotFound,
)
from controller.domain.ids import INSTANCE, RESERVATION
from controller.domain.images import ImageState
from controller.domain.instances import ShutdownBehavior
from controller.domain.messages import ScheduleReservation
from controller.domain.states import State
from controller.operations.accounts import quotas
from controller.operations.accounts.tags import tag_new
from controller.operations.cloud import Transaction
from controller.operations.instances.admission import addresses_for, check_address, room_for
from controller.operations.instances.history import record_event
from controller.operations.instances.launch_requests import LaunchRequest, check_launch
from controller.operations.instances.locking import LockedInstance
from controller.operations.instances.transitions import waiting
from controller.operations.instances.views import InstanceView
from controller.operations.networks.networks import usable_network

_GIB = 1024**3
# What an instance that was just accepted has of its view.
_HELD = tuple(name for name in InstanceView._fields if name in LockedInstance.__slots__)

# Part of every launch: built once, as building it costs more than running it.
_INGREDIENTS = (
    select(Project, Image, InstanceType)
    .select_from(Project)
    .outerjoin(InstanceType, InstanceType.name == bindparam("type"))
    .outerjoin(Image, and_(Image.id == bindparam("image"), or_(Image.public, Image.project_id == Project.id)))
    .where(Project.id == bindparam("project"))
    .execution_options(populate_existing=True)
)


class Separately(Exception):
    """Requests that cannot be launched together; nothing may be committed of them."""


@dataclass(frozen=True)
class Launched:
    """What became of a request. ``repeated``: it is the answer to an earlier one with the same client token, and its
    instances are as they have become since."""

    reservation: Reservation
    instances: Sequence[LockedInstance]
    image: Image
    repeated: bool = False


@dataclass(frozen=True)
class _Ingredients:
    project: Project
    image: Image
    instance_type: InstanceType
    public_key: str
    network: Network
    group_id: str | None


def launch(tx: Transaction, request: LaunchRequest) -> Launched:
    """Accept a request: rows in REQUESTED, quota counted, the scheduler notified. As many as there is room, quota and
    addresses for, up to ``max_count``; the statements are the same few for one and for thousands.

    The same client token gives the same instances.

    Raises:
        InvalidParameter, InvalidCombination, InvalidUserData, ImageNotFound, ImageUnavailable, InstanceTypeNotFound,
        KeyPairNotFound, NetworkNotFound, PlacementGroupNotFound, IdempotentParameterMismatch, QuotaExceeded,
        NoFreeAddress, AddressInUse, NoValidHost
    """
    if earlier := _earlier(tx, request):
        return earlier
    check_launch(request)
    given = _ingredients(tx, request)
    if request.address:
        check_address(tx, given.network, request.address)
    free = addresses_for(tx, given.network, request.min_count, request.max_count)
    room = room_for(tx, given.image, given.instance_type, request.zone, request.min_count, request.max_count)
    count = quotas.allowed(given.project, given.instance_type, request.min_count, min(free, room))
    (launched,) = _accept(tx, given, [(request, count)])
    return launched


def launch_together(tx: Transaction, requests: Sequence[LaunchRequest]) -> list[Launched]:
    """``launch`` for requests that differ in nothing but what their reservations keep (``LaunchRequest.kind``), in the
    statements of one. All are accepted in full, or none is: then each is to be launched by itself.

    Raises:
        Separately: one of them has been answered before, or not all of them fit. What ``launch`` raises.
    """
    tokens = [r.client_token for r in requests if r.client_token]
    if len(set(tokens)) < len(tokens) or (tokens and _are_known(tx, requests[0].project_id, tokens)):
        raise Separately
    for request in requests:
        check_launch(request)
    given, most = _ingredients(tx, requests[0]), sum(r.max_count for r in requests)
    addresses_for(tx, given.network, most, most)
    room_for(tx, given.image, given.instance_type, requests[0].zone, most, most)
    if quotas.allowed(given.project, given.instance_type, requests[0].min_count, most) < most:
        raise Separately
    return _accept(tx, given, [(r, r.max_count) for r in requests])


def just_launched(launched: Launched, request: LaunchRequest) -> list[InstanceView]:
    """The instances of a request that was accepted now, as ``views.instances_of`` would find them. No statement."""
    alike: dict[str, Any] = {
        "reason_code": "",
        "reason": "",
        "key_name": request.key_name,
        "shutdown_behavior": request.shutdown_behavior or ShutdownBehavior.STOP,
        "created_at": launched.reservation.created_at,
        "deleted_at": None,
        "client_token": launched.reservation.client_token,
        "architecture": launched.image.architecture,
        "host_zone": None,
        "hypervisor": None,
        "group_name": request.group_name or None,
        "tags": dict(request.tags),
    }
    return [InstanceView(**alike, **{name: getattr(i, name) for name in _HELD}) for i in launched.instances]


def _accept(tx: Transaction, given: "_Ingredients", counted: Sequence[tuple[LaunchRequest, int]]) -> list[Launched]:
    """Write down so many instances of each request; all are of one kind."""
    # All launches of a project wait for its row from here to the commit, so all that can be asked was asked before; but
    # not later than this: InnoDB locks the row for each insert that refers to it, and two such locks never let go.
    quotas.take(tx, given.project, given.instance_type, sum(count for _, count in counted))
    made = [(request, count, _reservation(tx, request, given)) for request, count in counted]
    tx.session.flush()  # the network may be new
    insert_rows(tx.session, Reservation.__table__, [row for _, _, row in made])
    rows = [row for request, count, of in made for row in _rows(tx, request, of["id"], given, count)]
    insert_rows(tx.session, Instance.__table__, rows)
    names = LockedInstance.__slots__
    instances = [LockedInstance(**{name: row[name] for name in names}) for row in rows]
    details = {
        of["id"]: f"{count} of {request.min_count}..{request.max_count} {given.instance_type.name} accepted"
        for request, count, of in made
    }
    record_event(tx, instances, "REQUESTED", lambda i: details[i.reservation_id])
    by_reservation = {key: list(members) for key, members in groupby(instances, key=lambda i: i.reservation_id)}
    launched = []
    for request, _, row in made:
        members = by_reservation[row["id"]]
        tag_new(tx, request.project_id, [i.id for i in members], dict(request.tags))
        tag_new(tx, request.project_id, [row["id"]], dict(request.reservation_tags))
        launched.append(Launched(Reservation(**row), members, given.image))
    first, *more = (row["id"] for _, _, row in made)
    tx.outbox.append(ScheduleReservation(first, tuple(more)))
    return launched


def _reservation(tx: Transaction, request: LaunchRequest, given: "_Ingredients") -> dict[str, Any]:
    return {
        "id": tx.ids.new(RESERVATION),
        "project_id": request.project_id,
        "user_id": request.user_id,
        "client_token": request.client_token or None,
        "request_sha256": request.digest(),
        "min_count": request.min_count,
        "user_data": request.user_data,
        "public_key": given.public_key,
        "created_at": tx.now,
    }


def _are_known(tx: Transaction, project_id: str, tokens: Sequence[str]) -> bool:
    known = select(Reservation.id).where(Reservation.project_id == project_id, among(Reservation.client_token, tokens))
    return tx.session.scalar(known.limit(1)) is not None


def _earlier(tx: Transaction, request: LaunchRequest) -> Launched | None:
    if not request.client_token:
        return None
    if len(request.client_token) > 64:
        raise InvalidParameter(parameter="client_token", value=request.client_token, reason="64 characters at most")
    reservation = tx.session.scalar(
        select(Reservation).where(
            Reservation.project_id == request.project_id, Reservation.client_token == request.client_token
        )
    )
    if reservation is None:
        return None
    if reservation.request_sha256 != request.digest():
        raise IdempotentParameterMismatch(token=request.client_token)
    columns = [getattr(Instance, name) for name in LockedInstance.__slots__]
    rows = select(*columns).where(Instance.reservation_id == reservation.id).order_by(Instance.launch_index)
    instances = [LockedInstance(**{**r._mapping, "state": State(r.state)}) for r in tx.session.execute(rows)]
    return Launched(reservation, instances, tx.session.get_one(Image, request.image_id), repeated=True)


def _ingredients(tx: Transaction, request: LaunchRequest) -> _Ingredients:
    wanted = {"project": request.project_id, "image": request.image_id, "type": request.instance_type}
    project, image, instance_type = tx.session.execute(_INGREDIENTS, wanted).one()
    if image is None:
        raise ImageNotFound(id=request.image_id)
    if image.state != ImageState.AVAILABLE:
        raise ImageUnavailable(id=image.id, state=image.state.lower())
    if instance_type is None or not instance_type.enabled:
        raise InstanceTypeNotFound(id=request.instance_type)
    if instance_type.memory_mib < image.min_memory_mib:
        reason = f"image {image.id} needs {image.min_memory_mib} MiB of memory, the type has {instance_type.memory_mib}"
        raise InvalidParameter(parameter="instance_type", value=instance_type.name, reason=reason)
    needed_gib = max(image.min_disk_gib, -(-image.virtual_size_bytes // _GIB))
    if instance_type.disk_gib < needed_gib:
        reason = f"image {image.id} needs a disk of {needed_gib} GiB, the type has {instance_type.disk_gib}"
        raise InvalidParameter(parameter="instance_type", value=instance_type.name, reason=reason)
    public_key, group_id = _public_key(tx, request), _group_id(tx, request)
    network = usable_network(tx, request.project_id, request.network_id)
    return _Ingredients(project, image, instance_type, public_key, network, group_id)


def _public_key(tx: Transaction, request: LaunchRequest) -> str:
    if not request.key_name:
        return ""
    query = select(KeyPair.public_key).where(KeyPair.project_id == request.project_id, KeyPair.name == request.key_name)
    found = tx.session.scalar(query)
    if found is None:
        raise KeyPairNotFound(id=request.key_name)
    return found


def _group_id(tx: Transaction, request: LaunchRequest) -> str | None:
    if not request.group_name:
        return None
    mine = PlacementGroup.project_id == request.project_id, PlacementGroup.name == request.group_name
    # Locked, so that no other transaction deletes it as empty meanwhile.
    found = tx.session.scalar(select(PlacementGroup.id).where(*mine).with_for_update(read=True))
    if found is None:
        raise PlacementGroupNotFound(id=request.group_name)
    return found


def _rows(
    tx: Transaction, request: LaunchRequest, reservation_id: str, given: _Ingredients, count: int
) -> list[dict[str, Any]]:
    alike = {
        "reservation_id": reservation_id,
        "project_id": request.project_id,
        "image_id": request.image_id,
        "instance_type": given.instance_type.name,
        "vcpus": given.instance_type.vcpus,
        "memory_mib": given.instance_type.memory_mib,
        "disk_gib": given.instance_type.disk_gib,
        "key_name": request.key_name,
        "zone": request.zone,
        "group_id": given.group_id,
        "wanted_ip": request.address,
        "shutdown_behavior": request.shutdown_behavior or ShutdownBehavior.STOP,
        "network_id": given.network.id,
        "host_id": None,
        "created_at": tx.now,
        "launched_at": None,
        "generation": 1,
        **waiting(tx, State.REQUESTED, on_host=False),
    }
    return [{**alike, "id": tx.ids.new(INSTANCE), "launch_index": n} for n in range(count)]
