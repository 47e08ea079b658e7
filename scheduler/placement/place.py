"""Placement: a request, a host table and a policy in, a plan out; the same arguments give the same plan."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from controller.domain.placement_groups import GroupStrategy
from scheduler.placement.host_table import HostTable, Ints
from scheduler.placement.lease_matching import match
from scheduler.placement.pinned_leases import PinnedLeases
from scheduler.placement.policy import Policy
from scheduler.placement.ranking import Ranking, Rankings
from scheduler.placement.request import Request
from scheduler.placement.spreading import pack, spread

# Up to this count choosing hosts one by one is faster than arrays of all hosts.
_FEW = 16


@dataclass(frozen=True)
class Placement:
    """The plan: the hosts of the instances that fit, in order, and their leases where leases are pinned.

    ``refusals`` counts hosts by filter and reason. ``considered`` counts all hosts, ``free_leases`` free leases.
    """

    host_ids: tuple[str, ...]
    considered: int
    refusals: Mapping[tuple[str, str], int] = field(default_factory=dict)
    lease_ids: tuple[int, ...] = ()
    free_leases: int | None = None
    ranking: Ranking | None = field(default=None, compare=False, repr=False)

    def explain_refusals(self) -> str:
        """One line for people: how many hosts each filter refused, and why."""
        if not self.considered:
            return "there is no host"
        parts = [f"{n} by {name} ({why})" for (name, why), n in sorted(self.refusals.items(), key=lambda r: -r[1])]
        line = f"of {self.considered} hosts refused: {', '.join(parts) or 'none'}"
        return line if self.free_leases is None else f"{line}; {self.free_leases} pinned leases are free"

    def first(self, count: int) -> "Placement":
        """The plan for its first ``count`` instances alone."""
        if count == len(self.host_ids):
            return self
        return replace(self, host_ids=self.host_ids[:count], lease_ids=self.lease_ids[:count])


def place(
    request: Request,
    host_table: HostTable,
    *,
    policy: Policy,
    leases: PinnedLeases | None = None,
    rankings: Rankings | None = None,
) -> Placement:
    """Choose hosts for as many instances of the request as fit: the host that weighs least first, ties to the smaller
    id. With ``leases`` each one gets a lease that is pinned to its host, and no assignment of leases would place more.

    ``rankings``: what earlier calls worked out; without it the result is the same, found by looking at all hosts again.
    Changes nothing: ``commit`` counts the plan as carried out.

    Raises:
        ValueError: hosts were added to the table since ``leases`` were made of it.
    """
    if leases is not None and len(leases.supply) != len(host_table):
        raise ValueError("hosts were added to the table: PinnedLeases have to be made again")
    ranking = (rankings or Rankings()).find(request, host_table, policy, leases)
    hosts, lease_ids = _choose(request, host_table, policy, leases, ranking)
    return Placement(
        host_ids=tuple([host_table.ids[host] for host in hosts]),
        considered=int(np.count_nonzero(host_table.known)),
        refusals=ranking.refusals(),
        lease_ids=tuple(lease_ids),
        free_leases=None if leases is None else leases.free,
        ranking=ranking,
    )


def commit(placement: Placement, request: Request, host_table: HostTable, leases: PinnedLeases | None = None) -> None:
    """Count the plan as carried out."""
    host_table.take_each(placement.host_ids, request)
    if leases is not None:
        leases.take(placement.lease_ids)
    if len(placement.host_ids) == 1 and placement.ranking is not None:
        placement.ranking.took(host_table.index[placement.host_ids[0]])


def _choose(
    request: Request, host_table: HostTable, policy: Policy, leases: PinnedLeases | None, ranking: Ranking
) -> tuple[Sequence[int], Sequence[int]]:
    if request.count <= _FEW and request.group_strategy != GroupStrategy.CLUSTER:
        if leases is None:
            return ranking.best(request.count), ()
        if request.count == 1 or leases.single:
            best = ranking.best(request.count)
            return best, leases.next_for_few(best)

    def layout(room: Ints, carried: Ints, count: int) -> Ints:
        if request.group_strategy != GroupStrategy.CLUSTER:
            return spread(request, host_table, policy, room, carried, count)
        members = host_table.hosts().among(request.group_hosts) | (carried > 0)
        return pack(room, ranking.weight, host_table.rank, members, count)

    if leases is not None and not leases.single:
        hosts, ids = match(leases, ranking.room, request.count, layout)
        return hosts.tolist(), ids.tolist()
    room = ranking.room if leases is None else np.minimum(ranking.room, leases.supply)
    hosts = layout(room, np.zeros(len(host_table), np.int64), request.count)
    return hosts.tolist(), () if leases is None else leases.next_for_each(hosts).tolist()
