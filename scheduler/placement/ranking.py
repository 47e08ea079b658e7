"""The hosts that may take an instance of one kind of request, best first, kept up to date with the host table."""

import heapq
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from scheduler.placement.filters import ANY_NUMBER, Filter
from scheduler.placement.host_table import Floats, Hosts, HostTable, Ints
from scheduler.placement.pinned_leases import PinnedLeases
from scheduler.placement.policy import Policy
from scheduler.placement.request import Request

_OPEN, _GONE = -1, 0
_NO_LEASE = ("lease", "no free lease is pinned to it")
# When more than this share of the hosts changed, judging all of them again is faster.
_MANY = 0.1
_KEPT = 16
# How many of a host's next weights are computed at a time.
_AHEAD = 16


class Ranking:
    """``room`` is how many instances each host may take, ``weight`` its weight before it takes any of them.

    All filters judge all hosts once. After that only filters that are not ``lasting`` judge the hosts that changed, so
    the cost of a single decision does not grow with the number of hosts.
    """

    def __init__(self, request: Request, host_table: HostTable, policy: Policy, leases: PinnedLeases | None) -> None:
        self._request = replace(request, count=1)
        self._host_table = host_table
        self._policy = policy
        self._leases = leases
        self._texts: list[tuple[str, str]] = [("", "")]
        self._code_of: dict[tuple[str, str], int] = {}
        self._judge_all()

    def sync(self) -> None:
        """Judge the hosts that changed since the last call."""
        changed = self._host_table.changes.since(self._mark) if self._epoch == self._host_table.epoch else None
        if changed is not None and self._leases is not None:
            of_leases = self._leases.changes.since(self._lease_mark)
            changed = None if of_leases is None else changed + of_leases
        if changed is None or len(changed) > max(16, _MANY * len(self._host_table)):
            self._judge_all()
        elif changed:
            self._judge_again(np.array(sorted(set(changed)), np.int64))
            self._note_marks()

    def refusals(self) -> dict[tuple[str, str], int]:
        """How many hosts each filter refused, by filter and reason."""
        return {text: n for text, n in zip(self._texts, self._counts, strict=False) if n and text[0]}

    def best(self, count: int) -> list[int]:
        """The hosts of the next ``count`` instances in order, fewer if there is no more room.

        For few instances; ``spreading.spread`` gives the same answer for many at once.
        """
        heap, stamps, rank = self._current_heap(), self._stamps, self._host_table.rank
        chosen: list[int] = []
        carried: dict[int, int] = {}
        untouched: list[tuple[float, int, int, int]] = []
        # Hosts that were chosen for some of these instances already.
        front: list[tuple[float, int, int]] = []
        while len(chosen) < count:
            while heap and stamps[heap[0][2]] != heap[0][3]:
                heapq.heappop(heap)
            if front and (not heap or front[0] < heap[0][:3]):
                _, _, host = heapq.heappop(front)
            elif heap:
                untouched.append(heapq.heappop(heap))
                host = untouched[-1][2]
            else:
                break
            chosen.append(host)
            carried[host] = n = carried.get(host, 0) + 1
            if len(chosen) < count and n < self._room_at(host):
                heapq.heappush(front, (self._weigh_at(host, n), int(rank[host]), host))
        for entry in untouched:
            heapq.heappush(heap, entry)
        return chosen

    def took(self, host: int) -> None:
        """Take over that one instance of this kind was counted on the host, if nothing else changed since ``sync``.

        The answers of filters and weighers are known then: room for one less, and the next of the weights computed in
        advance. If more may have changed, this does nothing: the next ``sync`` finds it.
        """
        host_table, room = self._host_table, int(self.room[host]) - 1
        if (
            room <= 0
            or self._heap is None
            or host_table.epoch != self._epoch
            or host_table.changes.mark != self._mark + 1
            or self._lasting_room[host] != ANY_NUMBER
        ):
            return
        if self._leases is not None and not self._leases.supply[host]:
            self._ran_out(host)
            return
        ahead = self._ahead.get(host)
        if not ahead:
            steps = np.arange(min(_AHEAD, room) - 1, -1, -1)
            hosts = host_table.hosts(np.full(len(steps), host))
            ahead = self._ahead[host] = self._policy.weigh(self._request, hosts, steps).tolist()
        self._mark += 1
        self.room[host] = room
        self.weight[host] = weight = ahead.pop()
        self._stamps[host] += 1
        heapq.heappush(self._heap, (weight, int(host_table.rank[host]), host, self._stamps[host]))

    def _ran_out(self, host: int) -> None:
        """The host has no free lease any more; when one comes back, ``sync`` judges the host again."""
        assert self._leases is not None
        if self._leases.changes.mark != self._lease_mark + 1:
            return
        code = self._code(_NO_LEASE)
        self._recount([_OPEN], [code])
        self.room[host], self._refusal[host] = 0, code
        self._stamps[host] += 1
        self._ahead.pop(host, None)
        self._mark += 1
        self._lease_mark += 1

    def _judge_all(self) -> None:
        everything = self._host_table.hosts()
        lasting = self._policy.filters[: self._policy.lasting]
        self._lasting_room: Ints = np.full(len(everything), ANY_NUMBER)
        self._lasting_refusal: Ints = np.where(self._host_table.known, _OPEN, _GONE)
        self._filter(everything, lasting, self._lasting_room, self._lasting_refusal)
        self.room, self._refusal = self._lasting_room.copy(), self._lasting_refusal.copy()
        self._judge_load(everything, None, self.room, self._refusal)
        self.weight: Floats = self._policy.weigh(self._request, everything, np.zeros(len(everything), np.int64))
        self._counts = np.bincount(self._refusal + 1, minlength=len(self._texts) + 1)[1:].tolist()
        self._heap: list[tuple[float, int, int, int]] | None = None
        self._ahead: dict[int, list[float]] = {}
        self._note_marks()

    def _judge_again(self, at: Ints) -> None:
        hosts = self._host_table.hosts(at)
        room, refusal = self._lasting_room[at], self._lasting_refusal[at]
        self._judge_load(hosts, at, room, refusal)
        weight = self._policy.weigh(self._request, hosts, np.zeros(len(at), np.int64))
        self._recount(self._refusal[at].tolist(), refusal.tolist())
        self.room[at], self._refusal[at], self.weight[at] = room, refusal, weight
        if self._heap is None:
            return
        ranks = self._host_table.rank[at].tolist()
        for host, free, weighs, rank in zip(at.tolist(), room.tolist(), weight.tolist(), ranks, strict=True):
            self._stamps[host] += 1
            self._ahead.pop(host, None)
            if free > 0:
                heapq.heappush(self._heap, (weighs, rank, host, self._stamps[host]))

    def _judge_load(self, hosts: Hosts, at: Ints | None, room: Ints, refusal: Ints) -> None:
        self._filter(hosts, self._policy.filters[self._policy.lasting :], room, refusal)
        if self._leases is not None:
            supply = self._leases.supply if at is None else self._leases.supply[at]
            lacks = (supply <= 0) & (refusal == _OPEN)
            if lacks.any():
                refusal[lacks] = self._code(_NO_LEASE)
        room[refusal != _OPEN] = 0

    def _filter(self, hosts: Hosts, filters: Sequence[tuple[str, Filter]], room: Ints, refusal: Ints) -> None:
        """Write the filters' verdicts into ``room`` and ``refusal``."""
        for name, check in filters:
            verdict = check(self._request, hosts, self._policy.settings)
            if verdict is None:
                continue
            refused = ~verdict.passes & (refusal == _OPEN)
            if refused.any():
                codes = np.array([self._code((name, reason)) for reason in verdict.reasons], np.int64)
                refusal[refused] = codes[0] if verdict.which is None else codes[verdict.which[refused]]
            if verdict.room is not None:
                np.minimum(room, verdict.room, out=room)

    def _recount(self, before: Sequence[int], after: Sequence[int]) -> None:
        self._counts += [0] * (len(self._texts) - len(self._counts))
        for old, new in zip(before, after, strict=True):
            if old != new:
                if old != _OPEN:
                    self._counts[old] -= 1
                if new != _OPEN:
                    self._counts[new] += 1

    def _current_heap(self) -> list[tuple[float, int, int, int]]:
        if self._heap is None or len(self._heap) > 4 * len(self._host_table) + 1024:
            self._ahead = {}
            self._stamps = [0] * len(self._host_table)
            at = np.flatnonzero(self.room > 0)
            columns = self.weight[at].tolist(), self._host_table.rank[at].tolist(), at.tolist(), [0] * len(at)
            self._heap = list(zip(*columns, strict=True))
            heapq.heapify(self._heap)
        return self._heap

    def _room_at(self, host: int) -> int:
        room = int(self.room[host])
        return room if self._leases is None else min(room, int(self._leases.supply[host]))

    def _weigh_at(self, host: int, carried: int) -> float:
        at, n = np.array([host]), np.array([carried])
        return float(self._policy.weigh(self._request, self._host_table.hosts(at), n)[0])

    def _code(self, text: tuple[str, str]) -> int:
        code = self._code_of.get(text)
        if code is None:
            code = self._code_of[text] = len(self._texts)
            self._texts.append(text)
        return code

    def _note_marks(self) -> None:
        self._epoch, self._mark = self._host_table.epoch, self._host_table.changes.mark
        self._lease_mark = self._leases.changes.mark if self._leases is not None else 0


class Rankings:
    """The rankings of the kinds of request that came last, each brought up to date when it is used again."""

    def __init__(self) -> None:
        self._kept: dict[object, Ranking] = {}

    def find(self, request: Request, host_table: HostTable, policy: Policy, leases: PinnedLeases | None) -> Ranking:
        """The ranking for this kind of request, as the host table is now."""
        if request.group_hosts:
            # The next request of this group has other hosts to avoid or to prefer.
            return Ranking(request, host_table, policy, leases)
        key = (request.kind, host_table, policy, leases)
        ranking = self._kept.pop(key, None)
        if ranking is None:
            ranking = Ranking(request, host_table, policy, leases)
        else:
            ranking.sync()
        self._kept[key] = ranking
        if len(self._kept) > _KEPT:
            del self._kept[next(iter(self._kept))]
        return ranking
