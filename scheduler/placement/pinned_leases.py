"""Leases that are pinned to hosts, as arrays: which hosts may carry which lease, and which are free."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from scheduler.placement.changes import Changes
from scheduler.placement.host_table import Bools, HostTable, Ints

_KEPT_CHANGES = 4096


class PinnedLeases:
    """Leases by index, in the order of their ids; those that may go to the very same hosts are a class.

    ``free`` is how many leases are free, ``class_free`` how many of each class, ``supply`` how many each host could
    carry; ``changes`` names hosts whose supply ran out or came back. Not for use by two threads at once.
    """

    def __init__(self, host_table: HostTable, pins: Iterable[tuple[int, str]], taken: Iterable[int] = ()) -> None:
        """``pins`` are pairs of a lease and a host that may carry it; hosts that are not in the table are ignored."""
        self._host_table = host_table
        self.rank = host_table.rank
        hosts_of: dict[int, set[int]] = {}
        index = host_table.index
        for lease_id, host_id in pins:
            host = index.get(host_id)
            hosts_of.setdefault(lease_id, set()).update(() if host is None else (host,))
        self.ids: Ints = np.array(sorted(hosts_of), np.int64)
        numbers: dict[tuple[int, ...], int] = {}
        self._index: dict[int, int] = {lease_id: at for at, lease_id in enumerate(self.ids.tolist())}
        self._class = [numbers.setdefault(tuple(sorted(hosts_of[i])), len(numbers)) for i in self._index]
        self.hosts_of_class: list[tuple[int, ...]] = list(numbers)
        classes: Ints = np.array(self._class, np.int64)
        self._by_class: Ints = np.argsort(classes, kind="stable")
        sizes = np.bincount(classes, minlength=len(numbers))
        self._start: Ints = np.concatenate(([0], np.cumsum(sizes)))
        self.single = all(len(hosts) <= 1 for hosts in self.hosts_of_class)
        self.classes_of_host: list[list[int]] = [[] for _ in range(len(host_table))]
        for number in sorted(range(len(numbers)), key=lambda n: len(self.hosts_of_class[n])):
            for host in self.hosts_of_class[number]:
                self.classes_of_host[host].append(number)
        self._free: Bools = np.ones(len(self.ids), bool)
        self.free = len(self.ids)
        self.class_free: Ints = sizes
        self.supply: Ints = np.zeros(len(host_table), np.int64)
        for hosts, size in zip(self.hosts_of_class, sizes.tolist(), strict=True):
            self.supply[list(hosts)] += size
        self.changes = Changes(_KEPT_CHANGES)
        self.take(taken)

    def take(self, lease_ids: Iterable[int]) -> None:
        """Mark these leases as in use; those that are already, and unknown ones, are ignored."""
        self._mark(lease_ids, free=False)

    def give_back(self, lease_ids: Iterable[int]) -> bool:
        """Mark these leases as free; False if some of them are unknown."""
        return self._mark(lease_ids, free=True)

    def next_for_few(self, hosts: Sequence[int]) -> list[int]:
        """The free leases that these hosts take next: those with the fewest other hosts first, then the smallest id.

        For more than one host every lease must be pinned to one host (``single``): no host takes another's then.
        """
        chosen: list[int] = []
        following: dict[int, Iterator[int]] = {}
        for host in hosts:
            if host not in following:
                number = next(n for n in self.classes_of_host[host] if self.class_free[n])
                following[host] = self._free_of(number)
            chosen.append(next(following[host]))
        return chosen

    def _free_of(self, number: int) -> Iterator[int]:
        """The free leases of a class, searched for one by one."""
        of_class = self._by_class[self._start[number] : self._start[number + 1]]
        free = self._free[of_class]
        at = int(free.argmax())
        while at < len(free) and free[at]:
            yield int(self.ids[of_class[at]])
            at += 1
            if at < len(free):
                at += int(free[at:].argmax())

    def next_for_each(self, hosts: Ints) -> Ints:
        """``next_for_few`` for many instances at once, where every lease is pinned to one host (``single``)."""
        class_of_host = np.full(len(self._host_table), -1)
        for number, of in enumerate(self.hosts_of_class):
            if of:
                class_of_host[of[0]] = number
        free = self._by_class[self._free[self._by_class]]
        start = np.concatenate(([0], np.cumsum(self.class_free)))
        order = np.argsort(hosts, kind="stable")
        of_order = hosts[order]
        begins = np.flatnonzero(np.concatenate(([True], of_order[1:] != of_order[:-1])))
        ordinal = np.arange(len(hosts)) - np.repeat(begins, np.diff(np.append(begins, len(hosts))))
        chosen = np.empty(len(hosts), np.int64)
        chosen[order] = self.ids[free[start[class_of_host[of_order]] + ordinal]]
        return chosen

    def free_of_class(self, number: int) -> Sequence[int]:
        """The free leases of a class, the smallest id first."""
        of_class = self._by_class[self._start[number] : self._start[number + 1]]
        ids: list[int] = self.ids[of_class[self._free[of_class]]].tolist()
        return ids

    def _mark(self, lease_ids: Iterable[int], *, free: bool) -> bool:
        marked: list[int] = []
        all_known = True
        for lease_id in lease_ids:
            at = self._index.get(lease_id)
            if at is None:
                all_known = False
            elif bool(self._free[at]) is not free:
                self._free[at] = free
                marked.append(self._class[at])
        self.free += len(marked) if free else -len(marked)
        for number, count in Counter(marked).items():
            change = count if free else -count
            self.class_free[number] += change
            for host in self.hosts_of_class[number]:
                before = self.supply[host]
                self.supply[host] = after = before + change
                if not before or not after:
                    self.changes.add((host,))
        return all_known
