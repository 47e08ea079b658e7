"""Every fact of a host is a field of its heartbeats, a column of its row, and what else its row of the table says."""

from dataclasses import fields, replace

import pytest

from controller.cli.hosts import _COLUMNS, _FIELDS
from controller.conf.settings import Scheduler
from controller.db.models import Claim, Host, Instance, InstanceType
from controller.domain.drift import drift
from controller.domain.errors import InvalidParameter
from controller.domain.host_facts import CAPACITIES, DRIFTING, FACTS, Capacity, Drift, Fact, check_facts, columns_of
from controller.domain.messages import HostReported
from scheduler.placement.host_row import FREE_FIELDS, HostRow, description_of, free_of, limits_of
from scheduler.placement.request import Request

HEARTBEAT = HostReported("h1", "", "boot", "kvm", vcpus=8, memory_mib=1024, disk_gib=100, labels=("ssd",))


def columns(model: type) -> set[str]:
    return set(model.__table__.columns.keys())  # type: ignore[attr-defined]


def test_every_fact_is_reported_and_stored() -> None:
    names = {fact.name for fact in FACTS}
    assert names <= {f.name for f in fields(HostReported)}
    assert {column for fact in FACTS for column in columns_of(fact)} <= columns(Host)


@pytest.mark.parametrize("capacity", CAPACITIES, ids=lambda c: c.name)
def test_every_capacity_is_claimed_and_placed(capacity: Capacity) -> None:
    assert capacity.name in columns(Claim) & columns(Instance) & columns(InstanceType)
    assert capacity.ratio in {f.name for f in fields(Scheduler)}
    assert capacity.name in {f.name for f in fields(Request)}


def test_a_request_needs_capacities_in_their_order() -> None:
    sizes = {c.name: n for n, c in enumerate(CAPACITIES, 1)}
    request = Request(count=1, **sizes)  # type: ignore[arg-type]
    assert request.need == tuple(sizes.values())


def test_the_scheduler_reads_every_capacity() -> None:
    row = HostRow("h", True, "READY", "kvm", "x86_64", "z1", 1, 2, 3, 4, 5, 6, "ssd", "", 64)
    assert (limits_of(row), free_of(row)) == ((1, 3, 5), (2, 4, 6))
    assert description_of(row) == (True, "READY", "kvm", "x86_64", "z1", "ssd", "", 64)
    assert [FREE_FIELDS[c.name] for c in CAPACITIES] == ["vcpus_free", "memory_free_mib", "disk_free_gib"]


def test_host_show_and_list_have_their_columns_in_order() -> None:
    assert (
        *("id", "mode", "up", "hypervisor", "architecture", "zone", "labels", "disk_backends"),
        *("vcpus", "vcpus_limit", "vcpus_used", "memory_mib", "memory_limit_mib", "memory_used_mib"),
        *("guest_overhead_mib", "disk_gib", "disk_limit_gib", "disk_used_gib"),
        *("drift", "release", "speaks", "remarks", "epoch", "boot_id", "last_seen_at", "created_at"),
    ) == _FIELDS
    assert (
        *("id", "mode", "up", "hypervisor", "zone", "labels", "vcpus_used", "vcpus_limit"),
        *("memory_used_mib", "memory_limit_mib", "release", "last_seen_at", "drift"),
    ) == _COLUMNS


def test_drift_names_capacities_first_and_labels_last() -> None:
    names = [fact.name for fact in DRIFTING]
    capacities = [c.name for c in CAPACITIES]
    assert names == [*capacities, "hypervisor", "architecture", "zone", "disk_backends", "labels"]


@pytest.mark.parametrize("fact", DRIFTING, ids=lambda f: f.name)
def test_every_drifting_fact_is_noted_and_can_return(fact: Fact) -> None:
    name, kind = fact.name, fact.drift
    before = {f.name: "8" for f in DRIFTING}
    after = {**before, name: "7"}
    text = drift("", before, after)
    assert text == f"{name} 8 -> 7"
    assert drift(text, after, before) == ""
    more = {Drift.SMALLER: "9", Drift.LOST: "8,9", Drift.CHANGED: "8,9"}[kind]
    assert bool(drift("", before, {**before, name: more})) == (kind is Drift.CHANGED)


@pytest.mark.parametrize(
    "wrong",
    [
        {"vcpus": -1},
        {"memory_mib": 2**40},
        {"disk_gib": -1},
        {"guest_overhead_mib": -1},
        {"speaks": 0},
        {"hypervisor": "K V M"},
        {"architecture": ""},
        {"zone": "-"},
        {"labels": ("a b",)},
        {"disk_backends": ("",)},
        {"images": ("f00d",)},
        {"release": "0 2"},
        {"boot_id": "\n"},
    ],
    ids=str,
)
def test_a_fact_that_cannot_be_true_is_refused_by_name(wrong: dict[str, object]) -> None:
    check_facts(HEARTBEAT)
    with pytest.raises(InvalidParameter) as refused:
        check_facts(replace(HEARTBEAT, **wrong))  # type: ignore[arg-type]
    assert refused.value.fields["parameter"] == next(iter(wrong))


def test_a_joining_host_has_some_of_each_capacity_but_disk() -> None:
    check_facts(replace(HEARTBEAT, disk_gib=0), joining=True)
    for field in ("vcpus", "memory_mib"):
        check_facts(replace(HEARTBEAT, **{field: 0}))  # type: ignore[arg-type]
        with pytest.raises(InvalidParameter, match=field):
            check_facts(replace(HEARTBEAT, **{field: 0}), joining=True)  # type: ignore[arg-type]
