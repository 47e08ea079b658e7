"""Small clusters to place on, and the plainest possible placement to compare with."""

import heapq
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from controller.conf.settings import Scheduler
from scheduler.placement.host_row import HostRow
from scheduler.placement.host_table import HostTable
from scheduler.placement.place import Placement, place
from scheduler.placement.policy import Policy, policy_for
from scheduler.placement.request import Request

SMALL = Request(count=1, vcpus=1, memory_mib=1024, disk_gib=10)
SPREAD = policy_for(Scheduler())
PACK = policy_for(Scheduler(strategy="pack"))


def host(name: str, **changes: object) -> HostRow:
    base = HostRow(name, True, "READY", "kvm", "x86_64", "z1", 16, 16, 32768, 32768, 500, 500)
    return base._replace(**changes)  # type: ignore[arg-type]


def placed(request: Request, hosts: Sequence[HostRow], policy: Policy = SPREAD) -> Placement:
    """On a host table made for it."""
    return place(request, HostTable(hosts), policy=policy)


def room(of: HostRow, request: Request) -> int:
    """How many instances the host has room for."""
    free = (of.vcpus_free, of.memory_free_mib, of.disk_free_gib)
    vcpus, memory_mib, disk_gib = request.need
    need = (vcpus, memory_mib + of.guest_overhead_mib, disk_gib)
    fits = [f // one for f, one in zip(free, need, strict=True) if one > 0]
    return max(0, min(fits, default=request.count))


def by_heap(request: Request, hosts: Sequence[HostRow], policy: Policy) -> tuple[str, ...]:
    """One choice after the other over hosts that pass every filter but capacity."""
    host_table = HostTable(hosts)
    one = replace(request, count=1)

    def weight(of: HostRow, carried: int) -> float:
        at = np.array([host_table.index[of.id]])
        return float(policy.weigh(one, host_table.hosts(at), np.array([carried]))[0])

    heap = [(weight(h, 0), h.id, 0, h) for h in hosts if room(h, request) > 0]
    heapq.heapify(heap)
    chosen: list[str] = []
    while heap and len(chosen) < request.count:
        _, host_id, carried, of = heapq.heappop(heap)
        chosen.append(host_id)
        if carried + 1 < room(of, request):
            heapq.heappush(heap, (weight(of, carried + 1), host_id, carried + 1, of))
    return tuple(chosen)
