"""Matches pinned leases with the hosts that placement prefers: as many instances as any assignment could place.

A slot is room for one instance on a host. Sets of slots that can all get a lease at once form a (transversal) matroid.
So slots are taken in the order of preference, each if some assignment serves it together with all slots taken before:
that ends with the largest possible number of slots and, among those, with the most preferred ones. Whether such an
assignment exists is decided by an augmenting path between hosts and classes of leases.
"""

from collections.abc import Callable

import numpy as np

from scheduler.placement.host_table import Ints
from scheduler.placement.pinned_leases import PinnedLeases

# (room of each host, what each carries of this request, how many more) -> the hosts of the next instances, in order.
Layout = Callable[[Ints, Ints, int], Ints]


def match(leases: PinnedLeases, room: Ints, count: int, layout: Layout) -> tuple[Ints, Ints]:
    """Choose hosts for up to ``count`` instances, and a lease for each."""
    matching = _Matching(leases)
    taken = np.zeros(len(room), np.int64)
    chosen: list[int] = []
    room = np.minimum(room, leases.supply)
    while len(chosen) < count:
        order = layout(room - taken, taken, count - len(chosen)).tolist()
        if not order:
            break
        for host in order:
            if matching.serve(host):
                chosen.append(host)
                taken[host] += 1
        closed = list(matching.closed)
        room[closed] = taken[closed]
    hosts = np.array(chosen, np.int64)
    return hosts, matching.leases_for(chosen)


class _Matching:
    """How many leases of each class each host holds. A host in ``closed`` can get no more by any rearrangement."""

    def __init__(self, leases: PinnedLeases) -> None:
        self._leases = leases
        self._classes_of = leases.classes_of_host
        self._left: list[int] = leases.class_free.tolist()
        self._holders: list[dict[int, int]] = [{} for _ in self._left]
        self._next = [0] * len(self._classes_of)
        self._dead: set[int] = set()
        self.closed: set[int] = set()

    def serve(self, host: int) -> bool:
        """Assign one more lease to the host; False: no rearrangement frees one, now or later."""
        if host in self.closed:
            return False
        classes, left = self._classes_of[host], self._left
        n = self._next[host]
        while n < len(classes) and not left[classes[n]]:
            n += 1
        self._next[host] = n
        if n == len(classes):
            return self._rearrange(host)
        left[classes[n]] -= 1
        holders = self._holders[classes[n]]
        holders[host] = holders.get(host, 0) + 1
        return True

    def leases_for(self, chosen: list[int]) -> Ints:
        """A lease for each of these hosts, in their order."""
        of_host: dict[int, list[int]] = {}
        for number, holders in enumerate(self._holders):
            free = iter(self._leases.free_of_class(number)) if holders else iter(())
            for host in sorted(holders, key=self._leases.rank.__getitem__):
                of_host.setdefault(host, []).extend(next(free) for _ in range(holders[host]))
        queues = {host: iter(sorted(ids)) for host, ids in of_host.items()}
        return np.fromiter((next(queues[host]) for host in chosen), np.int64, len(chosen))

    def _rearrange(self, host: int) -> bool:
        """Search breadth first for a class with a free lease, over hosts that could swap one of theirs for another."""
        came_by: dict[int, int] = {host: -1}
        seen_from: dict[int, int] = {}
        queue = [host]
        for at in queue:
            for number in self._classes_of[at]:
                if number in seen_from or number in self._dead:
                    continue
                seen_from[number] = at
                if self._left[number]:
                    self._left[number] -= 1
                    self._shift(number, seen_from, came_by)
                    return True
                for holder in self._holders[number]:
                    if holder not in came_by:
                        came_by[holder] = number
                        queue.append(holder)
        # All leases that were reached are held by hosts that were reached: neither can ever change again.
        self.closed |= came_by.keys()
        self._dead |= seen_from.keys()
        return False

    def _shift(self, number: int, seen_from: dict[int, int], came_by: dict[int, int]) -> None:
        while number >= 0:
            at = seen_from[number]
            self._holders[number][at] = self._holders[number].get(at, 0) + 1
            number = came_by[at]
            if number >= 0:
                self._holders[number][at] -= 1
                if not self._holders[number][at]:
                    del self._holders[number][at]
