"""Pinned leases: host and lease together, never fewer than the best assignment has."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.placement.host_row import HostRow
from scheduler.placement.host_table import HostTable
from scheduler.placement.pinned_leases import PinnedLeases
from scheduler.placement.place import commit, place
from scheduler.placement.policy import Policy
from scheduler.placement.ranking import Rankings
from scheduler.placement.request import Request
from tests.labs.clusters import PACK, SMALL, SPREAD, host, room

Pins = dict[int, set[str]]


def pinned(host_table: HostTable, pins: Pins) -> PinnedLeases:
    return PinnedLeases(host_table, [(lease, h) for lease, hosts in pins.items() for h in hosts])


def most(rooms: dict[str, int], pins: Pins) -> int:
    """The size of a maximum matching of leases and places on hosts, by plain augmenting paths."""
    at: dict[tuple[str, int], int] = {}

    def serve(lease: int, seen: set[tuple[str, int]]) -> bool:
        for place_ in ((h, n) for h in sorted(pins[lease]) for n in range(rooms.get(h, 0))):
            if place_ not in seen:
                seen.add(place_)
                if place_ not in at or serve(at[place_], seen):
                    at[place_] = lease
                    return True
        return False

    return sum(serve(lease, set()) for lease in pins)


def test_the_lease_decides_where_a_machine_runs() -> None:
    host_table = HostTable([host("a"), host("b"), host("c")])
    leases = pinned(host_table, {7: {"c"}, 3: {"b"}, 5: {"b"}})
    placement = place(replace(SMALL, count=5), host_table, policy=SPREAD, leases=leases)
    assert list(zip(placement.host_ids, placement.lease_ids, strict=True)) == [("b", 3), ("c", 7), ("b", 5)]
    assert placement.explain_refusals() == (
        "of 3 hosts refused: 1 by lease (no free lease is pinned to it); 3 pinned leases are free"
    )


def test_a_lease_that_could_go_elsewhere_makes_way() -> None:
    """The first choice is 1 for a, which would leave nothing for b."""
    host_table = HostTable([host("a"), host("b"), host("c", up=False)])
    leases = pinned(host_table, {1: {"a", "b"}, 2: {"a", "c"}})
    placement = place(replace(SMALL, count=2), host_table, policy=SPREAD, leases=leases)
    assert dict(zip(placement.host_ids, placement.lease_ids, strict=True)) == {"a": 2, "b": 1}


def test_the_most_bound_lease_goes_first_in_single_decisions_too() -> None:
    host_table = HostTable([host("a"), host("b")])
    leases, rankings = pinned(host_table, {1: {"a", "b"}, 2: {"a"}}), Rankings()
    first = place(SMALL, host_table, policy=SPREAD, leases=leases, rankings=rankings)
    commit(first, SMALL, host_table, leases)
    assert (first.host_ids, first.lease_ids) == (("a",), (2,))
    assert place(SMALL, host_table, policy=SPREAD, leases=leases, rankings=rankings).lease_ids == (1,)


def test_leases_that_are_given_back_serve_again() -> None:
    host_table = HostTable([host("a"), host("b", up=False)])
    leases, rankings = PinnedLeases(host_table, [(1, "a"), (2, "b"), (3, "elsewhere")], taken=[1]), Rankings()
    assert place(SMALL, host_table, policy=SPREAD, leases=leases, rankings=rankings).host_ids == ()
    assert not leases.give_back([1, 1, 99])
    assert leases.give_back([1])
    placement = place(SMALL, host_table, policy=SPREAD, leases=leases, rankings=rankings)
    assert (leases.free, placement.lease_ids) == (3, (1,))


def test_new_hosts_need_leases_made_again() -> None:
    host_table = HostTable([host("a")])
    leases = pinned(host_table, {1: {"a"}})
    host_table.refresh([host("b")])
    with pytest.raises(ValueError, match="made again"):
        place(SMALL, host_table, policy=SPREAD, leases=leases)


names = [f"h{n}" for n in range(5)]
host_tables = st.lists(st.integers(0, 6), min_size=5, max_size=5).map(
    lambda free: [host(name, vcpus_free=n) for name, n in zip(names, free, strict=True)]
)
single = st.dictionaries(st.integers(1, 40), st.sampled_from(names).map(lambda h: {h}), max_size=14)
several = st.dictionaries(st.integers(1, 40), st.sets(st.sampled_from(names), max_size=3), max_size=14)
counts = st.sampled_from([1, 2, 3, 5, 8, 20, 40])


@given(
    host_tables, st.one_of(single, several), counts, st.sampled_from([SPREAD, PACK]), st.sampled_from(["", "cluster"])
)
def test_as_many_as_any_assignment_has(
    hosts: list[HostRow], pins: Pins, count: int, policy: Policy, strategy: str
) -> None:
    request = replace(SMALL, count=count, group_strategy=strategy)
    host_table = HostTable(hosts)
    placement = place(request, host_table, policy=policy, leases=pinned(host_table, pins))
    rooms = {h.id: room(h, request) for h in hosts}
    assert len(placement.host_ids) == len(placement.lease_ids) == min(count, most(rooms, pins))
    assert len(set(placement.lease_ids)) == len(placement.lease_ids)
    assert all(h in pins[lease] for h, lease in zip(placement.host_ids, placement.lease_ids, strict=True))
    assert all(n <= rooms[h] for h, n in Counter(placement.host_ids).items())
    again = HostTable(hosts[::-1])
    assert place(request, again, policy=policy, leases=pinned(again, dict(reversed(pins.items())))) == placement


@given(host_tables, several, counts, st.sampled_from([SPREAD, PACK]))
def test_the_preferred_hosts_wherever_there_is_a_choice(
    hosts: list[HostRow], pins: Pins, count: int, policy: Policy
) -> None:
    """One instance after the other to the best host that still allows an assignment of all so far."""
    host_table, open_ = HostTable(hosts), HostTable(hosts)
    request = replace(SMALL, count=count)
    chosen = place(request, host_table, policy=policy, leases=pinned(host_table, pins)).host_ids
    rooms = {h.id: room(h, request) for h in hosts}
    expected: list[str] = []
    closed: set[str] = set()
    while len(expected) < count:
        allowed = [h for h in names if h not in closed and expected.count(h) < rooms[h]]
        if not allowed:
            break
        best = place(SMALL, _restricted(open_, allowed), policy=policy).host_ids[0]
        if most(Counter([*expected, best]), pins) == len(expected) + 1:
            expected.append(best)
            open_.take(best, SMALL)
        else:
            closed.add(best)
    assert chosen == tuple(expected)


def _restricted(host_table: HostTable, names: list[str]) -> HostTable:
    rows = [
        host(n, **dict(zip(("vcpus_free", "memory_free_mib", "disk_free_gib"), map(int, free), strict=True)))
        for n, free in ((n, host_table.free[:, host_table.index[n]]) for n in names)
    ]
    return HostTable(rows)


@given(host_tables, several, st.lists(st.one_of(st.just(1), st.integers(1, 40)), max_size=16))
def test_leases_that_are_kept_answer_as_new_ones(hosts: list[HostRow], pins: Pins, steps: list[int]) -> None:
    host_table, rankings = HostTable(hosts), Rankings()
    leases = pinned(host_table, pins)
    taken: set[int] = set()
    for n, step in enumerate(steps):
        request = Request(step, 1, 64, 1)
        placement = place(request, host_table, policy=SPREAD, leases=leases, rankings=rankings)
        fresh = PinnedLeases(host_table, [(i, h) for i, of in pins.items() for h in of], taken)
        assert place(request, host_table, policy=SPREAD, leases=fresh).host_ids == placement.host_ids
        if n % 3:
            commit(placement, request, host_table, leases)
            taken |= set(placement.lease_ids)
        elif step in taken:
            leases.give_back([step])
            taken.remove(step)
