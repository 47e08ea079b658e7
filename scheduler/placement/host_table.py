"""All hosts as arrays: built from rows once, then updated in place."""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from controller.domain.host_facts import CAPACITIES
from scheduler.placement.changes import Changes
from scheduler.placement.host_row import HostRow, description_of, free_of, limits_of, listed
from scheduler.placement.request import Request

Bools: TypeAlias = npt.NDArray[np.bool_]
Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]

_ALL = slice(None)
_KEPT_CHANGES = 4096
# The capacity of which each guest takes its host's overhead, too.
_MEMORY = next(n for n, capacity in enumerate(CAPACITIES) if capacity.overhead)


class HostTable:
    """The hosts by index. An index stays a host's own; ``rank`` orders them by id, for ties.

    ``free`` and ``limit`` have a row for each of ``CAPACITIES``; ``overhead`` is the memory that each guest takes
    beside its own. ``epoch`` rises when a host's description changes; ``changes`` logs hosts whose load changed.
    Not for use by two threads at once.
    """

    def __init__(self, rows: Sequence[HostRow] = ()) -> None:
        self.ids: list[str] = []
        self.index: dict[str, int] = {}
        self.words: list[str] = []
        self.epoch = 0
        self.changes = Changes(_KEPT_CHANGES)
        self.known: Bools = np.zeros(0, bool)
        self.up: Bools = np.zeros(0, bool)
        self.rank: Ints = np.zeros(0, np.int64)
        self.free: Ints = np.zeros((len(CAPACITIES), 0), np.int64)
        self.limit: Ints = np.zeros((len(CAPACITIES), 0), np.int64)
        self.overhead: Ints = np.zeros(0, np.int64)
        # mode, hypervisor, architecture, zone: indexes of words
        self.codes: Ints = np.zeros((4, 0), np.int64)
        self._code_of: dict[str, int] = {}
        self._described: list[tuple[object, ...]] = []
        self._items: dict[str, list[frozenset[str]]] = {"label": [], "image": []}
        self._having: dict[tuple[str, str], Bools] = {}
        self.refresh(rows)

    def __len__(self) -> int:
        return len(self.ids)

    def refresh(self, rows: Sequence[HostRow]) -> None:
        """Take over these rows; all other hosts stay as they are."""
        if not rows:
            return
        self._append([row.id for row in rows if row.id not in self.index])
        at = np.fromiter((self.index[row.id] for row in rows), np.int64, len(rows))
        limit = np.array([limits_of(row) for row in rows], np.int64).T
        free = np.array([free_of(row) for row in rows], np.int64).T
        changed = ((self.limit[:, at] != limit) | (self.free[:, at] != free)).any(axis=0)
        self.limit[:, at] = limit
        self.free[:, at] = free
        self.changes.add(at[changed].tolist())
        for i, row in zip(at.tolist(), rows, strict=True):
            description = description_of(row)
            if self._described[i] != description:
                self._described[i] = description
                self._describe(i, row)

    def remove(self, host_ids: Iterable[str]) -> None:
        """Drop hosts that were removed; their indexes stay unused until they come back."""
        for host_id in host_ids:
            self.known[self.index[host_id]] = False
            self._described[self.index[host_id]] = ()
            self.epoch += 1

    @property
    def silent(self) -> bool:
        """Whether there are hosts, and all of them are down."""
        return bool(self.known.any()) and not bool((self.known & self.up).any())

    def take(self, host_id: str, request: Request, count: int = 1) -> None:
        """The host carries ``count`` more of the request's instances (negative: fewer)."""
        i = self.index[host_id]
        free = self.free
        for n, need in enumerate(request.need):
            free[n, i] -= count * need
        if overhead := int(self.overhead[i]):
            free[_MEMORY, i] -= count * overhead
        self.changes.add((i,))

    def give_back(self, host_id: str, request: Request, count: int = 1) -> None:
        """The host carries ``count`` fewer."""
        self.take(host_id, request, -count)

    def take_each(self, host_ids: Sequence[str], request: Request) -> None:
        """One more instance for each time that a host is named."""
        if len(host_ids) < 2:
            for host_id in host_ids:
                self.take(host_id, request)
            return
        index = self.index
        at = np.fromiter((index[h] for h in host_ids), np.int64, len(host_ids))
        counts = np.bincount(at, minlength=len(self))
        self.free -= self.hosts().need(request) * counts
        self.changes.add(np.flatnonzero(counts).tolist())

    def hosts(self, at: Ints | None = None) -> "Hosts":
        """The hosts of these indexes, which may repeat; all of them by default."""
        return Hosts(self, _ALL if at is None else at)

    def overheads_mib(self, host_ids: Iterable[str]) -> dict[str, int]:
        """The memory that each guest takes on these hosts beside its own."""
        return {h: int(self.overhead[self.index[h]]) for h in host_ids}

    def code(self, word: str) -> int:
        """The number of a word, -1 where no host has it."""
        return self._code_of.get(word, -1)

    def having(self, kind: str, item: str) -> Bools:
        """Which hosts have the label or the image (``kind``)."""
        found = self._having.get((kind, item))
        if found is None:
            items = self._items[kind]
            found = self._having[kind, item] = np.fromiter((item in of for of in items), bool, len(items))
        return found

    def _append(self, ids: Sequence[str]) -> None:
        more = len(ids)
        if not more:
            return
        for host_id in ids:
            self.index[host_id] = len(self.ids)
            self.ids.append(host_id)
        self._described += [()] * more
        for items in self._items.values():
            items += [frozenset()] * more
        self.known = np.append(self.known, np.zeros(more, bool))
        self.up = np.append(self.up, np.zeros(more, bool))
        blank = np.zeros((len(CAPACITIES), more), np.int64)
        self.free = np.append(self.free, blank, axis=1)
        self.limit = np.append(self.limit, blank, axis=1)
        self.overhead = np.append(self.overhead, blank[0])
        self.codes = np.append(self.codes, np.zeros((4, more), np.int64), axis=1)
        self.rank = np.empty(len(self), np.int64)
        self.rank[sorted(range(len(self)), key=self.ids.__getitem__)] = np.arange(len(self))

    def _describe(self, i: int, row: HostRow) -> None:
        self.known[i] = True
        self.up[i] = row.up
        self.overhead[i] = row.guest_overhead_mib
        self.codes[:, i] = [self._learn(w) for w in (row.mode, row.hypervisor, row.architecture, row.zone)]
        self._items["label"][i] = listed(row.labels)
        self._items["image"][i] = listed(row.images)
        self._having.clear()
        self.epoch += 1

    def _learn(self, word: str) -> int:
        code = self._code_of.setdefault(word, len(self.words))
        if code == len(self.words):
            self.words.append(word)
        return code


class Hosts:
    """Some hosts of the table, as filters and weighers see them: every array has one entry for each of ``at``."""

    __slots__ = ("_at", "_host_table")

    def __init__(self, host_table: HostTable, at: Ints | slice) -> None:
        self._host_table = host_table
        self._at = at

    def __len__(self) -> int:
        return len(self._host_table) if isinstance(self._at, slice) else len(self._at)

    @property
    def up(self) -> Bools:
        """Whether their heartbeats arrive."""
        return self._host_table.up[self._at]

    @property
    def mode(self) -> Ints:
        """The operator's ``HostMode``, as codes of ``words``."""
        return self._host_table.codes[0, self._at]

    @property
    def hypervisor(self) -> Ints:
        """Codes of ``words``."""
        return self._host_table.codes[1, self._at]

    @property
    def architecture(self) -> Ints:
        """Codes of ``words``."""
        return self._host_table.codes[2, self._at]

    @property
    def zone(self) -> Ints:
        """Codes of ``words``."""
        return self._host_table.codes[3, self._at]

    @property
    def free(self) -> Ints:
        """What may still be claimed of each of ``CAPACITIES``: vCPUs, memory in MiB, disk in GiB."""
        return self._host_table.free[:, self._at]

    @property
    def limit(self) -> Ints:
        """What may be claimed in all: vCPUs, memory in MiB, disk in GiB."""
        return self._host_table.limit[:, self._at]

    def need(self, request: Request) -> Ints:
        """What one instance takes of each of them: vCPUs, memory in MiB, disk in GiB."""
        overhead = self._host_table.overhead[self._at]
        need: Ints = np.empty((len(CAPACITIES), len(overhead)), np.int64)
        need[:] = np.array(request.need, np.int64)[:, None]
        need[_MEMORY] += overhead
        return need

    @property
    def words(self) -> Sequence[str]:
        """What the codes mean."""
        return self._host_table.words

    def code(self, word: str) -> int:
        """The code of a word, -1 where no host has it."""
        return self._host_table.code(word)

    def labelled(self, label: str) -> Bools:
        """Which of them have the label."""
        return self._host_table.having("label", label)[self._at]

    def with_image(self, sha256: str) -> Bools:
        """Which of them have the image's file already."""
        return self._host_table.having("image", sha256)[self._at]

    def among(self, host_ids: Iterable[str]) -> Bools:
        """Which of them are these hosts."""
        named = np.zeros(len(self._host_table), bool)
        named[[self._host_table.index[h] for h in host_ids if h in self._host_table.index]] = True
        return named[self._at]
