"""Placement: a request, a fleet and a policy in, a plan out; the same arguments give the same plan."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from controller.domain.placement_groups import GroupStrategy
from scheduler.host import Request
from scheduler.host_table import HostTable, Ints
from scheduler.lease_matching import match
from scheduler.pinned_leases import PinnedLeases
from scheduler.policy import Policy
from scheduler.ranking import Ranking, ranking_of
from scheduler.spreading import pack, spread

# Up to here one choice after the other costs less than arrays of all hosts.
_FEW = 16


@dataclass(frozen=True)
class Placement:
    """Where the instances go: for each one that found a host, its host's id, in order, and its lease where leases are
    pinned.

    ``refusals`` counts hosts by filter and reason; ``considered`` is how many there were, ``free_leases`` likewise.
    """

    host_ids: tuple[str, ...]
    considered: int
    refusals: Mapping[tuple[str, str], int] = field(default_factory=dict)
    lease_ids: tuple[int, ...] = ()
    free_leases: int | None = None
    ranking: Ranking | None = field(default=None, compare=False, repr=False)

    def explain_refusals(self) -> str:
        """One line for a person: how many hosts each filter refused, and why."""
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


def place(request: Request, host_table: HostTable, *, policy: Policy, leases: PinnedLeases | None = None) -> Placement:
    """Choose a host for each instance of the request, the one that weighs least first, ties to the smaller id; as
    many as fit. With ``leases`` each one gets a lease that is pinned to its host, and no assignment of leases would
    place more.

    Nothing is taken: that is ``commit``'s, once the plan was accepted.
    """
    if leases is not None and len(leases.supply) != len(host_table):
        raise ValueError("the fleet has gained hosts: its pinned leases have to be made again")
    ranking = ranking_of(request, host_table, policy, leases)
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
