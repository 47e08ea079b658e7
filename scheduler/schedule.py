"""The work of some doorbells: reservations' instances get a host and an address each, in one transaction."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

import structlog
from sqlalchemy import select

from controller.db.models import (
    GroupStrategy,
    Image,
    Instance,
    InstanceType,
    Network,
    NetworkKind,
    PlacementGroup,
    Reservation,
)
from controller.domain.errors import AddressInUse, ClaimConflict, NoFreeAddress
from controller.domain.messages import WireInstances
from controller.domain.states import Event
from controller.operations.claims import claim_hosts
from controller.operations.cloud import Transaction
from controller.operations.held import HeldInstance, chunks, lock_requested
from controller.operations.leases import claim_leases, claim_pinned, find_lease, lock_free
from controller.operations.lifecycle import move
from scheduler.host import Request, listed
from scheduler.placement import Placement, place
from scheduler.policy import policy_for
from scheduler.view import SiteView

log = structlog.get_logger(__name__)

# How often a plan is made anew because somebody else took some of its leases.
_PLANS = 10


def schedule(tx: Transaction, reservation_ids: Collection[str], view: SiteView) -> int:
    """Place what is still REQUESTED of these reservations; answers how many instances found a host.

    Instances that do not fit end in ERROR with the reason; all of a reservation, where less than its minimum fits.
    While no host is heard of at all, nobody is refused: that is a fault that may pass, not a lack of room. They stay
    REQUESTED until the next doorbell, or until their deadline.

    Raises:
        ClaimConflict: somebody else claimed what the placement counted on; run it again.
    """
    instances = lock_requested(tx, reservation_ids)
    if not instances:
        return 0
    least = _minimums(tx, {i.reservation_id for i in instances})
    view.refresh(tx)
    try:
        return sum(_place(tx, alike, view, least) for alike in _alike(instances))
    except ClaimConflict:
        view.forget()
        raise


def _minimums(tx: Transaction, reservation_ids: Collection[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for chunk in chunks(sorted(reservation_ids)):
        query = select(Reservation.id, Reservation.min_count).where(Reservation.id.in_(chunk))
        found |= {row.id: row.min_count for row in tx.session.execute(query)}
    return found


def _alike(instances: Sequence[HeldInstance]) -> list[list[HeldInstance]]:
    """The instances that one placement serves, reservations whole and in order."""
    groups: dict[tuple[object, ...], list[HeldInstance]] = defaultdict(list)
    for i in sorted(instances, key=lambda i: (i.state_since, i.reservation_id, i.launch_index)):
        alone = i.reservation_id if i.wanted_ip else ""
        key = (i.network_id, i.image_id, i.instance_type, i.vcpus, i.memory_mib, i.disk_gib, i.zone, i.group_id, alone)
        groups[key].append(i)
    return list(groups.values())


def _place(tx: Transaction, alike: Sequence[HeldInstance], view: SiteView, least: Mapping[str, int]) -> int:
    network = tx.session.get_one(Network, alike[0].network_id)
    request = _request(tx, alike)
    pinned = network.kind == NetworkKind.PINNED
    placement = _plan_pinned(tx, request, alike[0], view) if pinned else _plan(tx, request, view)
    if view.fleet.silent:
        log.warning("no host is heard of, requests wait", instances=len(alike), hosts=placement.considered)
        return 0
    placed = _whole_reservations(alike, len(placement.host_ids), least)
    there = {i.id for i in placed}
    _refuse(tx, [i for i in alike if i.id not in there], request, placement)
    if not placed:
        return 0
    for instance, host_id in zip(placed, placement.host_ids, strict=False):
        instance.host_id = host_id
    try:
        if pinned:
            claim_pinned(tx, list(zip(placed, placement.lease_ids, strict=False)))
        else:
            claim_leases(tx, network, placed)
    except (NoFreeAddress, AddressInUse) as error:
        for instance in placed:
            instance.host_id = None
        move(tx, placed, Event.FAILED, detail=str(error), reason_code="Server.InsufficientFreeAddresses")
        return 0
    claim_hosts(tx, placed)
    refused = placement.explain_refusals()
    move(tx, placed, Event.PLACED, detail=lambda i: f"on {i.host_id}; {refused}")
    tx.outbox.append(WireInstances((network.id,), tuple(i.id for i in placed)))
    view.fleet.take_each([i.host_id or "" for i in placed], request)
    return len(placed)


def _request(tx: Transaction, instances: Sequence[HeldInstance]) -> Request:
    """All of these are alike: the first one speaks for them."""
    first = instances[0]
    image = tx.session.get_one(Image, first.image_id)
    flavor = tx.session.get(InstanceType, first.instance_type)
    labels = listed(image.required_labels) | listed(flavor.required_labels if flavor else "")
    strategy, group_hosts = _group(tx, first.group_id)
    return Request(
        count=len(instances),
        vcpus=first.vcpus,
        memory_mib=first.memory_mib,
        disk_gib=first.disk_gib,
        architecture=image.architecture,
        hypervisor=image.hypervisor,
        zone=first.zone,
        labels=tuple(sorted(labels)),
        image=image.sha256,
        group_strategy=strategy,
        group_hosts=group_hosts,
    )


def _group(tx: Transaction, group_id: str | None) -> tuple[str, frozenset[str]]:
    """The group's strategy and the hosts of its members; the group stays locked, so that two schedulers never lay
    out one group at the same time."""
    group = group_id and tx.session.get(PlacementGroup, group_id, with_for_update=True)
    if not group:
        return "", frozenset()
    hosts = tx.session.scalars(
        select(Instance.host_id).where(Instance.group_id == group_id, Instance.host_id.is_not(None)).distinct()
    )
    return GroupStrategy(group.strategy), frozenset(h for h in hosts if h)


def _plan(tx: Transaction, request: Request, view: SiteView) -> Placement:
    """A plan; before anybody is refused, the hosts are read anew."""
    policy = policy_for(tx.settings.scheduler)
    placement = place(request, view.fleet, policy=policy)
    if len(placement.host_ids) < request.count and view.refresh(tx, fresh=True):
        return place(request, view.fleet, policy=policy)
    return placement


def _plan_pinned(tx: Transaction, request: Request, first: HeldInstance, view: SiteView) -> Placement:
    """A plan whose leases are locked. Leases that somebody else took meanwhile are counted as taken, and the plan is
    made anew; where remembered hosts and leases do not suffice, they are read anew first."""
    policy = policy_for(tx.settings.scheduler)
    wanted = find_lease(tx, first.network_id, first.wanted_ip) if first.wanted_ip else None
    leases = view.leases(tx, first.network_id, fresh=bool(first.wanted_ip))
    fresh, contended = bool(first.wanted_ip), False
    for _ in range(_PLANS):
        among = leases if wanted is None else leases.only([wanted])
        placement = place(request, view.fleet, policy=policy, leases=among)
        if len(placement.host_ids) < request.count and view.refresh(tx, fresh=True):
            continue
        if len(placement.host_ids) < request.count and not fresh:
            leases, fresh = view.leases(tx, first.network_id, fresh=True), True
            continue
        if len(placement.host_ids) < request.count and contended:
            break  # what is locked may be free again in a moment: no reason to refuse anybody
        free = lock_free(tx, placement.lease_ids)
        leases.take(placement.lease_ids)
        if len(free) == len(placement.lease_ids):
            return placement
        leases.give_back(free)
        contended = True
    raise ClaimConflict(kind="network", id=first.network_id)


def _whole_reservations(alike: Sequence[HeldInstance], room: int, least: Mapping[str, int]) -> list[HeldInstance]:
    """Those that get a host, first come first served; of a reservation its minimum at least, or none."""
    placed: list[HeldInstance] = []
    by_reservation: dict[str, list[HeldInstance]] = defaultdict(list)
    for instance in alike:
        by_reservation[instance.reservation_id].append(instance)
    for reservation_id, members in by_reservation.items():
        fit = members[: room - len(placed)]
        needed = sum(1 for i in members if i.launch_index < least[reservation_id])
        if len(fit) >= needed:
            placed += fit
    return placed


def _refuse(tx: Transaction, instances: Sequence[HeldInstance], request: Request, placement: Placement) -> None:
    room, alone = "no host fits", ""
    if placement.host_ids:
        room = f"there was room for {len(placement.host_ids)} of {request.count}"
        alone = "; the group takes one a host" if request.group_strategy == GroupStrategy.SPREAD else ""
    move(
        tx,
        instances,
        Event.FAILED,
        detail=f"{room} of {request.vcpus} vCPU / {request.memory_mib} MiB / {request.disk_gib} GiB: "
        f"{placement.explain_refusals()}{alone}",
        reason_code="Server.InsufficientInstanceCapacity",
    )
