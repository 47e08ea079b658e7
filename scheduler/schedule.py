"""Schedules reservations: each instance gets a host and an address, all in one transaction."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import structlog

from controller.db.models import Network
from controller.domain.errors import AddressInUse, ClaimConflict, NoFreeAddress
from controller.domain.messages import PrepareNetworks
from controller.domain.networks import NetworkKind
from controller.domain.placement_groups import GroupStrategy
from controller.domain.reasons import ReasonCode
from controller.domain.states import Event
from controller.operations.cloud import Transaction
from controller.operations.hosts.claims import claim_hosts
from controller.operations.instances.locking import LockedInstance, lock_requested
from controller.operations.instances.transitions import transition
from controller.operations.networks.leases import claim_pinned, find_lease, lock_free
from controller.operations.networks.pooled_leases import (
    Addresses,
    choose_addresses,
    choose_wanted,
    claim_addresses,
    lock_pools,
)
from scheduler.host_cache import HostCache
from scheduler.placement.pinned_leases import PinnedLeases
from scheduler.placement.place import Placement, place
from scheduler.placement.policy import policy_for
from scheduler.placement.request import Request
from scheduler.requests import ReservationSpec, alike, hosts_of_group, lock_groups, specs_of

log = structlog.get_logger(__name__)

# How often a plan is made again because another transaction took some of its leases.
_PLANS = 10


@dataclass(frozen=True)
class _Decision:
    """A decision about identical instances: those ``placed`` have their address, but not yet their claim on the host;
    those ``refused`` have nothing."""

    placed: Sequence[LockedInstance]
    placement: Placement
    refused: Sequence[LockedInstance]
    reason_code: str
    reason: str


def schedule(tx: Transaction, reservation_ids: Collection[str], cache: HostCache) -> int:
    """Place the instances of these reservations that are still REQUESTED; answers how many were placed.

    As many reservations as hosts and addresses allow are placed, each with at least its minimum. The other instances
    end in ERROR with the reason, and hold nothing. While all hosts are down no instance is refused: that is an outage,
    not a lack of room. They stay REQUESTED until the next doorbell, or until their deadline.

    Locks are always taken in this order: instances, groups, networks, leases, hosts.

    Raises:
        ClaimConflict: another transaction claimed what the placement counted on; run it again.
    """
    instances = lock_requested(tx, reservation_ids)
    if not instances:
        return 0
    specs = specs_of(tx, instances)
    strategies = lock_groups(tx, instances)
    instances = [i for i in instances if _is_understood(i, specs[i.reservation_id], strategies)]
    pools = lock_pools(tx, {i.network_id for i in instances if not specs[i.reservation_id].pinned})
    try:
        cache.begin()
        cache.refresh(tx)
        decisions: list[_Decision] = []
        for group in alike(instances):
            decisions.append(_decide(tx, group, specs, strategies, pools, cache, decisions))
        return _carry_out(tx, decisions, cache)
    except Exception as error:
        # Without this, leases that are gone or pinned elsewhere now would be chosen again on every retry.
        cache.forget(leases=isinstance(error, ClaimConflict) and error.fields.get("kind") == "lease")
        raise


def _is_understood(instance: LockedInstance, specs: ReservationSpec, strategies: Mapping[str, str]) -> bool:
    """Whether this release knows the network's kind and the group's strategy; if not, a newer scheduler places it."""
    strategy = strategies.get(instance.group_id or "", "")
    understood = NetworkKind(specs.kind).known and (not strategy or GroupStrategy(strategy).known)
    if not understood:
        log.warning("left to a newer scheduler", instance=instance.id, network_kind=specs.kind, strategy=strategy)
    return understood


def _decide(
    tx: Transaction,
    instances: Sequence[LockedInstance],
    specs: Mapping[str, ReservationSpec],
    strategies: Mapping[str, str],
    pools: Mapping[str, Network],
    cache: HostCache,
    before: Sequence[_Decision],
) -> _Decision:
    """Decide about identical instances; ``before``: earlier decisions of this transaction, not yet written."""
    first = instances[0]
    strategy = strategies.get(first.group_id or "", "")
    hosts = hosts_of_group(tx, first.group_id) if first.group_id and strategy else frozenset()
    hosts |= {
        i.host_id or "" for made in before for i in made.placed if first.group_id and i.group_id == first.group_id
    }
    request = specs[first.reservation_id].request(instances, strategy, hosts)
    pool, leases = pools.get(first.network_id), None
    if pool is None:
        placement, leases = _plan_pinned(tx, request, first, cache)
    else:
        placement = _plan(tx, request, cache)
    if cache.host_table.silent:
        log.warning("all hosts are down, requests wait", instances=len(instances), hosts=placement.considered)
        return _Decision((), placement.first(0), (), "", "")
    room, addresses = len(placement.host_ids), Addresses()
    if pool is not None and room:
        addresses = choose_wanted(tx, pool, first.wanted_ip) if first.wanted_ip else choose_addresses(tx, pool, room)
        room = len(addresses)
    placed = _whole_reservations(instances, room, specs)
    placed_ids = {i.id for i in placed}
    code, reason = _no_room(request, placement)
    if pool is not None and room < len(placement.host_ids):
        code, reason = _no_address(pool, first.wanted_ip, room, len(instances))
    chosen = placement.first(len(placed))
    cache.take(chosen, request, leases)
    for instance, host_id in zip(placed, chosen.host_ids, strict=True):
        instance.host_id = host_id
    if pool is not None:
        claim_addresses(tx, pool, placed, addresses)
    else:
        claim_pinned(tx, list(zip(placed, chosen.lease_ids, strict=True)))
    return _Decision(placed, chosen, [i for i in instances if i.id not in placed_ids], code, reason)


def _carry_out(tx: Transaction, decisions: Sequence[_Decision], cache: HostCache) -> int:
    """Claim the hosts and write the decisions to the rows."""
    for made in decisions:
        transition(tx, made.refused, Event.FAILED, detail=made.reason, reason_code=made.reason_code)
    placed = [i for made in decisions for i in made.placed]
    if not placed:
        return 0
    claim_hosts(tx, placed, cache.host_table.overheads_mib({i.host_id or "" for i in placed}))
    refusals = {i.id: text for d in decisions for text in [d.placement.explain_refusals()] for i in d.placed}
    transition(tx, placed, Event.PLACED, detail=lambda i: f"on {i.host_id}; {refusals[i.id]}")
    networks = tuple(sorted({i.network_id for i in placed}))
    tx.outbox.append(PrepareNetworks(networks, tuple(i.id for i in placed)))
    return len(placed)


def _plan(tx: Transaction, request: Request, cache: HostCache) -> Placement:
    """A plan; if it does not place all instances, it is made again of hosts read now."""
    policy = policy_for(tx.settings.scheduler)
    placement = place(request, cache.host_table, policy=policy, rankings=cache.rankings)
    if len(placement.host_ids) < request.count and cache.refresh(tx, fresh=True):
        return place(request, cache.host_table, policy=policy, rankings=cache.rankings)
    return placement


def _plan_pinned(
    tx: Transaction, request: Request, first: LockedInstance, cache: HostCache
) -> tuple[Placement, PinnedLeases]:
    """A plan whose leases are locked, and the leases that it chose from. Leases that another transaction has locked
    count as taken, and the plan is made again. If cached hosts and leases do not suffice, they are read again first."""
    policy = policy_for(tx.settings.scheduler)
    fresh, contended = bool(first.wanted_ip), False

    def find_leases() -> PinnedLeases:
        if first.wanted_ip:
            return cache.only(tx, find_lease(tx, first.network_id, first.wanted_ip))
        return cache.leases(tx, first.network_id)

    leases = find_leases()
    for _ in range(_PLANS):
        placement = place(request, cache.host_table, policy=policy, leases=leases, rankings=cache.rankings)
        if len(placement.host_ids) < request.count and cache.refresh(tx, fresh=True):
            leases = find_leases()  # hosts may have been added to the table
            continue
        if len(placement.host_ids) < request.count and not fresh:
            leases, fresh = cache.leases(tx, first.network_id, fresh=True), True
            continue
        if len(placement.host_ids) < request.count and contended:
            break  # locked leases may be free again in a moment: no reason to refuse an instance
        free = lock_free(tx, placement.lease_ids)
        if len(free) == len(placement.lease_ids):
            return placement, leases
        leases.take(set(placement.lease_ids) - free)
        if contended and not fresh:  # another scheduler took more than one plan shows
            leases, fresh = cache.leases(tx, first.network_id, fresh=True), True
        contended = True
    raise ClaimConflict(kind="network", id=first.network_id)


def _whole_reservations(
    instances: Sequence[LockedInstance], room: int, specs: Mapping[str, ReservationSpec]
) -> list[LockedInstance]:
    """The instances that there is room for, the oldest first; of a reservation at least its minimum, or none."""
    placed: list[LockedInstance] = []
    by_reservation: dict[str, list[LockedInstance]] = defaultdict(list)
    for instance in instances:
        by_reservation[instance.reservation_id].append(instance)
    for reservation_id, members in by_reservation.items():
        fit = members[: room - len(placed)]
        needed = sum(1 for i in members if i.launch_index < specs[reservation_id].least)
        if len(fit) >= needed:
            placed += fit
    return placed


def _no_address(pool: Network, wanted_ip: str, room: int, asked: int) -> tuple[str, str]:
    """The code and the reason for those that get no address."""
    error = (
        AddressInUse(id=wanted_ip, user="another instance, or was until a moment ago")
        if wanted_ip
        else NoFreeAddress(network=pool.name, cidr=pool.cidr, free=room, asked=asked)
    )
    return ReasonCode.NO_FREE_ADDRESS, str(error)


def _no_room(request: Request, placement: Placement) -> tuple[str, str]:
    """The code and the reason for those that get no host."""
    room, alone = "no host fits", ""
    if placement.host_ids:
        room = f"there was room for {len(placement.host_ids)} of {request.count}"
        alone = "; the group takes one a host" if request.group_strategy == GroupStrategy.SPREAD else ""
    return (
        ReasonCode.NO_CAPACITY,
        f"{room} of {request.vcpus} vCPU / {request.memory_mib} MiB / {request.disk_gib} GiB: "
        f"{placement.explain_refusals()}{alone}",
    )
