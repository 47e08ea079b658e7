"""Placement: what holds for every cluster, whether hosts are chosen one by one or by whole arrays."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.conf.settings import Scheduler
from scheduler.placement.host_row import HostRow
from scheduler.placement.host_table import HostTable
from scheduler.placement.place import commit, place
from scheduler.placement.policy import Policy, policy_for
from scheduler.placement.ranking import Rankings
from scheduler.placement.request import Request
from tests.labs.clusters import PACK, SMALL, SPREAD, by_heap, host, placed, room

IMAGE_FIRST = policy_for(Scheduler(weighers=("load:1.0", "image_present:0.35")))
policies = st.sampled_from([SPREAD, PACK, IMAGE_FIRST])


def test_spread_evens_out() -> None:
    hosts = [host("a"), host("b", vcpus_free=8, memory_free_mib=16384), host("c")]
    assert sorted(placed(replace(SMALL, count=8), hosts).host_ids) == ["a"] * 4 + ["c"] * 4


def test_pack_fills_the_fullest_first() -> None:
    hosts = [host("a"), host("b", vcpus_free=3), host("c", vcpus_free=1)]
    assert placed(replace(SMALL, count=6), hosts, PACK).host_ids == ("c", "b", "b", "b", "a", "a")


def test_ties_go_to_the_smaller_id() -> None:
    assert placed(SMALL, [host("b"), host("a"), host("c")]).host_ids == ("a",)


def test_an_image_that_is_there_outweighs_some_load() -> None:
    hosts = [host("a"), host("b", vcpus_free=12, images="cafe, f00d")]
    request = replace(SMALL, count=5, image="f00d")
    assert placed(request, hosts, IMAGE_FIRST).host_ids == ("b", "b", "a", "b", "a")
    assert set(placed(replace(request, image="beef"), hosts, IMAGE_FIRST).host_ids) == {"a"}


def test_every_refusal_is_counted_with_its_reason() -> None:
    hosts = [
        host("down", up=False),
        host("off", mode="DISABLED"),
        host("arm", architecture="aarch64"),
        host("far", zone="z2"),
        host("xen", hypervisor="xen"),
        host("slow", labels="gpu"),
        host("cpu", vcpus_free=0, labels="ssd,gpu"),
        host("ram", memory_free_mib=1023, labels="ssd,gpu"),
        host("disk", disk_free_gib=9, labels="ssd,gpu"),
        host("both", memory_free_mib=0, disk_free_gib=-3, labels="ssd,gpu"),
    ]
    placement = placed(replace(SMALL, zone="z1", hypervisor="kvm", labels=("gpu", "ssd")), hosts)
    assert placement.host_ids == ()
    assert placement.refusals == {
        ("alive", "down: no heartbeat"): 1,
        ("in_service", "disabled"): 1,
        ("architecture", "aarch64, not x86_64"): 1,
        ("zone", "not in zone z1"): 1,
        ("hypervisor", "xen, not kvm"): 1,
        ("labels", "lacks label ssd"): 1,
        ("capacity", "too few free vCPUs"): 1,
        ("capacity", "too little free memory"): 2,
        ("capacity", "too little free disk"): 1,
    }
    assert placement.explain_refusals().startswith("of 10 hosts refused: 2 by capacity (too little free memory), 1 by ")


def test_no_host_at_all_is_said() -> None:
    assert placed(SMALL, []).explain_refusals() == "there is no host"


def test_a_reserve_is_never_promised() -> None:
    policy = policy_for(Scheduler(reserved_host_share=0.25))
    placement = placed(replace(SMALL, count=20), [host("a"), host("b", vcpus_free=4)], policy)
    assert placement.host_ids == ("a",) * 12
    assert placement.refusals == {("reserve", "all but the reserved 25% is taken"): 1}


@pytest.mark.parametrize("count", [3, 30])
def test_a_spread_group_has_no_two_on_one_host(count: int) -> None:
    hosts = [host(name) for name in "abcd"]
    request = replace(SMALL, count=count, group_strategy="spread", group_hosts=frozenset({"b", "long gone"}))
    placement = placed(request, hosts)
    assert sorted(placement.host_ids) == ["a", "c", "d"]
    assert placement.refusals == {("group", "carries a member of the group"): 1}


def test_a_cluster_group_stays_together_while_there_is_room() -> None:
    hosts = [host("a", vcpus_free=5), host("b", vcpus_free=3), host("c")]
    group = replace(SMALL, group_strategy="cluster")
    assert set(placed(replace(group, count=10), hosts).host_ids) == {"c"}
    assert placed(replace(group, count=4, group_hosts=frozenset({"b"})), hosts).host_ids == ("b", "b", "b", "c")
    assert len(placed(replace(group, count=40), hosts).host_ids) == 24


def test_a_host_that_is_removed_is_not_considered_and_may_come_back() -> None:
    host_table, rankings = HostTable([host("a"), host("b")]), Rankings()
    host_table.remove(["a"])
    placement = place(SMALL, host_table, policy=SPREAD, rankings=rankings)
    assert (placement.host_ids, placement.considered, placement.refusals) == (("b",), 1, {})
    host_table.refresh([host("a")])
    assert place(SMALL, host_table, policy=SPREAD, rankings=rankings).host_ids == ("a",)


clusters = st.lists(
    st.tuples(
        st.integers(0, 16),
        st.integers(0, 16384),
        st.integers(0, 200),
        st.sampled_from(["", "img"]),
        st.sampled_from([0, 64]),
    ),
    max_size=8,
).map(
    lambda rows: [
        host(f"h{n}", vcpus_free=v, memory_free_mib=m, disk_free_gib=d, images=i, guest_overhead_mib=o)
        for n, (v, m, d, i, o) in enumerate(rows)
    ]
)
requests = st.builds(
    Request,
    st.integers(1, 60),
    st.integers(1, 8),
    st.integers(1, 8192),
    st.integers(0, 100),
    image=st.sampled_from(["", "img"]),
)


@given(clusters, requests, policies)
def test_never_more_than_fits_and_never_less(hosts: list[HostRow], request: Request, policy: Policy) -> None:
    chosen = placed(request, hosts, policy).host_ids
    for h in hosts:
        count = chosen.count(h.id)
        assert count * request.vcpus <= h.vcpus_free
        assert count * (request.memory_mib + h.guest_overhead_mib) <= h.memory_free_mib
        assert count * request.disk_gib <= h.disk_free_gib
    assert len(chosen) == min(request.count, sum(room(h, request) for h in hosts))


@given(clusters, requests, policies)
def test_whole_arrays_give_what_one_choice_after_the_other_gives(
    hosts: list[HostRow], request: Request, policy: Policy
) -> None:
    assert placed(request, hosts, policy).host_ids == by_heap(request, hosts, policy)


@given(clusters, requests)
def test_the_order_of_the_hosts_does_not_matter(hosts: list[HostRow], request: Request) -> None:
    assert placed(request, hosts) == placed(request, hosts[::-1])


# The same few kinds again and again, most of them one at a time.
familiar = st.builds(
    lambda kind, count: replace(kind, count=count),
    st.sampled_from([SMALL, replace(SMALL, vcpus=2), replace(SMALL, memory_mib=100, image="img")]),
    st.sampled_from([1, 1, 1, 2, 5, 17]),
)
events = st.lists(
    st.one_of(
        familiar,
        familiar,
        requests,
        st.tuples(st.integers(0, 7), st.integers(-2, 16)),
        st.tuples(st.integers(0, 7), st.sampled_from(["up", "mode"])),
    ),
    max_size=30,
)


@given(clusters, events, policies)
def test_kept_rankings_answer_as_new_ones(hosts: list[HostRow], events: list[object], policy: Policy) -> None:
    host_table, rankings = HostTable(hosts), Rankings()
    rows = {h.id: h for h in hosts}
    for event in events:
        if isinstance(event, Request):
            placement = place(event, host_table, policy=policy, rankings=rankings)
            assert placement == placed(event, list(rows.values()), policy)
            commit(placement, event, host_table)
            for host_id in placement.host_ids:
                rows[host_id] = _less(rows[host_id], event)
        elif isinstance(event, tuple) and f"h{event[0]}" in rows:
            row = rows[f"h{event[0]}"]
            if event[1] == "up":
                row = row._replace(up=not row.up)
            elif event[1] == "mode":
                row = row._replace(mode="DRAINING")
            else:
                row = row._replace(vcpus_free=event[1])
            rows[row.id] = row
            host_table.refresh([row])


def _less(row: HostRow, request: Request) -> HostRow:
    return row._replace(
        vcpus_free=row.vcpus_free - request.vcpus,
        memory_free_mib=row.memory_free_mib - request.memory_mib - row.guest_overhead_mib,
        disk_free_gib=row.disk_free_gib - request.disk_gib,
    )
