"""The work of some doorbells: reservations' instances get a host and an address each, in one transaction."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import structlog

from controller.db.models import Network
from controller.domain.errors import AddressInUse, ClaimConflict, NoFreeAddress
from controller.domain.messages import PrepareNetworks
from controller.domain.networks import NetworkKind
from controller.domain.placement_groups import GroupStrategy
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
from scheduler.host import Request
from scheduler.host_cache import HostCache
from scheduler.pinned_leases import PinnedLeases
from scheduler.placement import Placement, place
from scheduler.policy import policy_for
from scheduler.requests import ReservationSpec, alike, hosts_of_group, lock_groups, specs_of

log = structlog.get_logger(__name__)

# How often a plan is made anew because another transaction took some of its leases.
_PLANS = 10


@dataclass(frozen=True)
class _Decision:
    """What was decided of alike instances: those that are ``placed`` have an address, but not yet their host; those
    that are ``refused`` have nothing."""

    placed: Sequence[LockedInstance]
    placement: Placement
    refused: Sequence[LockedInstance]
    reason_code: str
    reason: str


def schedule(tx: Transaction, reservation_ids: Collection[str], cache: HostCache) -> int:
    """Place what is still REQUESTED of these reservations; answers how many instances found a host.

    Hosts and addresses are room alike: as many reservations as fit are placed, each with its minimum at least. The
    other instances end in ERROR with the reason, and hold nothing. While no host is heard of at all, nobody is refused:
    that is a fault that may pass, not a lack of room. They stay REQUESTED until the next doorbell, or until their
    deadline.

    Locks are taken in one order, whatever comes together: instances, groups, networks, leases, hosts.

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
        # Leases whose pins have changed, or that are gone, would be chosen again and again.
        cache.forget(leases=isinstance(error, ClaimConflict) and error.fields.get("kind") == "lease")
        raise


def _is_understood(instance: LockedInstance, specs: ReservationSpec, strategies: Mapping[str, str]) -> bool:
    """Whether this release knows what is asked for; if not, it waits for a scheduler of the newer release."""
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
    """``before``: what was decided in this transaction, and is not written down yet."""
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
        log.warning("no host is heard of, requests wait", instances=len(instances), hosts=placement.considered)
        return _Decision((), placement.first(0), (), "", "")
    room, addresses = len(placement.host_ids), Addresses()
    if pool is not None and room:
        addresses = choose_wanted(tx, pool, first.wanted_ip) if first.wanted_ip else choose_addresses(tx, pool, room)
        room = len(addresses)
    placed = _whole_reservations(instances, room, specs)
    there = {i.id for i in placed}
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
    return _Decision(placed, chosen, [i for i in instances if i.id not in there], code, reason)


def _carry_out(tx: Transaction, decisions: Sequence[_Decision], cache: HostCache) -> int:
    """Claim the hosts and write down what was decided."""
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
    """A plan; before anybody is refused, the hosts are read anew."""
    policy = policy_for(tx.settings.scheduler)
    placement = place(request, cache.host_table, policy=policy)
    if len(placement.host_ids) < request.count and cache.refresh(tx, fresh=True):
        return place(request, cache.host_table, policy=policy)
    return placement


def _plan_pinned(
    tx: Transaction, request: Request, first: LockedInstance, cache: HostCache
) -> tuple[Placement, PinnedLeases]:
    """A plan whose leases are locked, and what its leases were chosen from. Leases that another transaction has locked
    are counted as taken, and the plan is made anew; where remembered hosts and leases do not suffice, they are read
    anew first."""
    policy = policy_for(tx.settings.scheduler)
    fresh, contended = bool(first.wanted_ip), False

    def look() -> PinnedLeases:
        if first.wanted_ip:
            return cache.only(tx, find_lease(tx, first.network_id, first.wanted_ip))
        return cache.leases(tx, first.network_id)

    leases = look()
    for _ in range(_PLANS):
        placement = place(request, cache.host_table, policy=policy, leases=leases)
        if len(placement.host_ids) < request.count and cache.refresh(tx, fresh=True):
            leases = look()  # the fleet may have gained hosts
            continue
        if len(placement.host_ids) < request.count and not fresh:
            leases, fresh = cache.leases(tx, first.network_id, fresh=True), True
            continue
        if len(placement.host_ids) < request.count and contended:
            break  # what is locked may be free again in a moment: no reason to refuse anybody
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
    """Those that there is room for, first come first served; of a reservation its minimum at least, or none."""
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
    return "Server.InsufficientFreeAddresses", str(error)


def _no_room(request: Request, placement: Placement) -> tuple[str, str]:
    """The code and the reason for those that get no host."""
    room, alone = "no host fits", ""
    if placement.host_ids:
        room = f"there was room for {len(placement.host_ids)} of {request.count}"
        alone = "; the group takes one a host" if request.group_strategy == GroupStrategy.SPREAD else ""
    return (
        "Server.InsufficientInstanceCapacity",
        f"{room} of {request.vcpus} vCPU / {request.memory_mib} MiB / {request.disk_gib} GiB: "
        f"{placement.explain_refusals()}{alone}",
    )
