"""Races for the last of everything, with real threads on the three real engines: exactly one wins."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import select

from controller.db.models import Lease
from controller.domain.errors import AddressInUse, NoFreeVlan
from controller.domain.messages import ScheduleReservation
from controller.domain.states import Event, State
from controller.operations.accounts import projects
from controller.operations.audit.audit import audit
from controller.operations.cloud import Transaction
from controller.operations.hosts import hosts
from controller.operations.instances import actions
from controller.operations.instances.launch import launch
from controller.operations.networks import networks
from scheduler.host_cache import HostCache
from scheduler.schedule import schedule
from tests.faults import row
from tests.labs.cloud import TestCloud
from tests.labs.races import RACERS, race

pytestmark = pytest.mark.functional


@pytest.fixture
def site(tmp_path: Path, database_url: str) -> Iterator[TestCloud]:
    made = TestCloud.create(
        tmp_path, database_url, database__pool_size=RACERS, database__retries=60, network__vlan_last=104
    )
    made.heartbeat()
    made.heartbeat("h2")
    yield made
    made.close()


@row(
    fault=f"the same client token from {RACERS} clients at once",
    strikes="before any of them is answered",
    seen="one reservation, and all are given its instances",
)
def test_one_token_from_many_clients_is_one_reservation(site: TestCloud) -> None:
    request = site.request(3, client_token="the same")
    site.launch(1)  # the project's network is there
    results = race(lambda _: site.cloud.write(lambda tx: launch(tx, request).reservation.id))
    assert len(set(map(str, results))) == 1
    assert len(site.views()) == 4


def test_the_last_quota_is_taken_once(site: TestCloud) -> None:
    site.launch(1)
    site.cloud.write(lambda tx: projects.set_quota(tx, "demo", instances=4))
    results = race(lambda _: site.launch(1))
    assert sum(isinstance(r, list) for r in results) == 3
    assert {type(r).__name__ for r in results if not isinstance(r, list)} == {"QuotaExceeded"}
    assert site.cloud.read(lambda tx: projects.get_project(tx, "demo").used_instances) == 4


def test_launches_side_by_side_are_all_accepted(tmp_path: Path, database_url: str) -> None:
    site = TestCloud.create(tmp_path, database_url, quota__instances=1000, quota__vcpus=1000, quota__memory_mib=10**6)
    for n in range(10):
        site.heartbeat(f"h{n}")
    site.launch(1)
    results = race(lambda _: [site.launch(1) for _ in range(10)], 8)
    assert [r for r in results if not isinstance(r, list)] == []
    assert len(site.views()) == 81
    site.close()


def test_many_schedulers_never_claim_twice(site: TestCloud) -> None:
    for _ in range(RACERS):
        site.launch(2)
    bells = site.bus.take(ScheduleReservation)

    def place_all(n: int) -> None:
        for bell in bells[n:] + bells[:n]:
            site.cloud.write(lambda tx, b=bell: schedule(tx, [b.reservation_id], HostCache()))  # type: ignore[misc]

    race(place_all, 8)
    views = site.views()
    assert {v.state for v in views} == {State.BUILDING}
    assert len({v.ip for v in views}) == len({v.mac for v in views}) == 2 * RACERS
    for host in site.cloud.read(hosts.list_hosts):
        carried = [v for v in views if v.host_id == host.id]
        assert host.vcpus_used == len(carried)
        assert host.memory_used_mib == 128 * len(carried)


def test_a_lease_that_is_locked_for_a_moment_is_waited_for(tmp_path: Path, database_url: str) -> None:
    site = TestCloud.create(
        tmp_path, database_url, database__pool_size=RACERS, database__retries=60, network__project_prefix_length=28
    )
    site.heartbeat(vcpus=64)
    ids = site.launch(13)  # all that a /28 has
    (bell,) = site.bus.take(ScheduleReservation)
    assert site.cloud.write(lambda tx: schedule(tx, [bell.reservation_id], HostCache())) == 13
    site.cloud.write(lambda tx: actions.terminate(tx, site.project_id, ids[:1]))
    site.report(ids[:1], Event.GONE)  # one address is free again
    (late,) = site.launch(1)
    (bell,) = site.bus.take(ScheduleReservation)
    locked, tried = threading.Event(), threading.Event()

    def hold(tx: Transaction) -> None:
        tx.session.scalars(select(Lease).where(Lease.instance_id.is_(None)).with_for_update()).all()
        locked.set()
        tried.wait(2)  # on SQLite a writer waits for this transaction before it begins

    def place(tx: Transaction) -> int:
        try:
            return schedule(tx, [bell.reservation_id], HostCache())
        finally:
            tried.set()

    with ThreadPoolExecutor(1) as pool:
        holder = pool.submit(site.cloud.write, hold)
        assert locked.wait(10)
        placed = site.cloud.write(place)
        holder.result(10)
    assert (placed, site.states([late])) == (1, [State.BUILDING])
    site.close()


def test_the_last_capacity_goes_to_as_many_as_fit(site: TestCloud) -> None:
    site.heartbeat(vcpus=1)  # 8 vCPUs promised on h1
    site.heartbeat("h2", vcpus=0)
    reservations = []
    for _ in range(4):
        site.launch(2)
        reservations += site.bus.take(ScheduleReservation)
    site.heartbeat(vcpus=0, memory_mib=16384)
    site.heartbeat("h2", vcpus=1, memory_mib=3 * 2 * 128)
    race(lambda n: site.cloud.write(lambda tx: schedule(tx, [reservations[n].reservation_id], HostCache())), 4)
    states = [v.state for v in site.views()]
    assert states.count(State.BUILDING) == 6
    assert states.count(State.ERROR) == 2
    assert site.cloud.read(lambda tx: hosts.get_host(tx, "h2").memory_used_mib) == 6 * 128


@row(
    fault=f"{RACERS} racers for the last 5 VLANs",
    strikes="networks are created at the same moment",
    seen="each VLAN is one network's, with a range of its own; the others are told that all are taken (NoFreeVlan)",
)
def test_the_last_vlans_go_to_one_each(site: TestCloud) -> None:
    results = race(lambda n: site.cloud.write(lambda tx: networks.create_network(tx, None, f"net{n}").vlan))
    won = [r for r in results if isinstance(r, int)]
    assert sorted(won) == [100, 101, 102, 103, 104]
    assert all(isinstance(r, NoFreeVlan) for r in results if not isinstance(r, int))
    cidrs = [n.cidr for n in site.cloud.read(networks.list_networks)]
    assert len(set(cidrs)) == 5


@row(
    fault=f"{RACERS} racers for the last VLAN",
    strikes="networks are created at the same moment",
    seen="one network; the others are told that all are taken (NoFreeVlan)",
)
def test_the_last_vlan(site: TestCloud) -> None:
    for n in range(4):
        site.cloud.write(lambda tx, n=n: networks.create_network(tx, None, f"old{n}"))  # type: ignore[misc]
    results = race(lambda n: site.cloud.write(lambda tx: networks.create_network(tx, None, f"net{n}").vlan))
    assert [r for r in results if isinstance(r, int)] == [104]
    assert {type(r) for r in results if not isinstance(r, int)} == {NoFreeVlan}
    assert len(site.cloud.read(networks.list_networks)) == 5
    assert site.cloud.read(audit) == []


@row(
    fault=f"{RACERS} racers for the last address of a network",
    strikes="all are accepted before, and scheduled at the same moment",
    seen="one is built; the others end in ERROR, no_free_address, and hold nothing",
)
def test_the_last_address(site: TestCloud) -> None:
    network = _network_with_one_address_left(site)
    bells = []
    for _ in range(RACERS):
        site.launch(1, network_id=network)
        bells += site.bus.take(ScheduleReservation)
    race(lambda n: site.cloud.write(lambda tx: schedule(tx, [bells[n].reservation_id], HostCache())))
    _one_of_them_is_built(site, [b.reservation_id for b in bells], "no_free_address")


@row(
    fault=f"{RACERS} racers for the last address of a network",
    strikes="each asks for that very address, from the request on",
    seen="one is built; the others are told that it is in use (AddressInUse), or end in ERROR with that reason",
)
def test_the_last_address_by_name(site: TestCloud) -> None:
    network = _network_with_one_address_left(site)

    def ask(n: int) -> str:
        request = site.request(1, network_id=network, address="10.9.0.14")
        return site.cloud.write(lambda tx: launch(tx, request).reservation.id)

    results = race(ask)
    accepted = [r for r in results if isinstance(r, str)]
    assert accepted
    assert {type(r) for r in results if not isinstance(r, str)} <= {AddressInUse}
    race(lambda n: site.cloud.write(lambda tx: schedule(tx, [accepted[n]], HostCache())), len(accepted))
    _one_of_them_is_built(site, accepted, "no_free_address")


@row(
    fault=f"{RACERS} racers for the last vCPU of the site",
    strikes="all are accepted before, and scheduled at the same moment",
    seen="one is built; the others end in ERROR, no_capacity, and hold nothing",
)
def test_the_last_vcpu(site: TestCloud) -> None:
    site.heartbeat("h2", vcpus=0)
    site.heartbeat(vcpus=RACERS)
    bells = []
    for _ in range(RACERS):
        site.launch(1)
        bells += site.bus.take(ScheduleReservation)
    site.heartbeat(vcpus=1)
    site.launch(7)
    for bell in site.bus.take(ScheduleReservation):
        site.cloud.write(lambda tx, b=bell: schedule(tx, [b.reservation_id], HostCache()))  # type: ignore[misc]
    assert site.cloud.read(lambda tx: hosts.get_host(tx, "h1").vcpus_used) == 7
    race(lambda n: site.cloud.write(lambda tx: schedule(tx, [bells[n].reservation_id], HostCache())))
    _one_of_them_is_built(site, [b.reservation_id for b in bells], "no_capacity")
    assert site.cloud.read(lambda tx: hosts.get_host(tx, "h1").vcpus_used) == 8


def _network_with_one_address_left(site: TestCloud) -> str:
    site.heartbeat(vcpus=1000)
    network = site.cloud.write(lambda tx: networks.create_network(tx, None, "small", "10.9.0.0/28").id)
    site.launch(12, network_id=network)
    for bell in site.bus.take(ScheduleReservation):
        site.cloud.write(lambda tx, b=bell: schedule(tx, [b.reservation_id], HostCache()))  # type: ignore[misc]
    return network


def _one_of_them_is_built(site: TestCloud, reservation_ids: list[str], reason_code: str) -> None:
    """And the others have ended with this code, hold nothing, and nothing is half-made."""
    racers = [v for v in site.views() if v.reservation_id in reservation_ids]
    assert len(racers) == len(reservation_ids)
    (winner,) = [v for v in racers if v.state == State.BUILDING]
    losers = [v for v in racers if v is not winner]
    assert {v.state for v in losers} <= {State.ERROR}
    assert {v.reason_code for v in losers} <= {reason_code}
    assert {(v.ip, v.host_id) for v in losers} <= {("", None)}
    assert winner.ip
    assert site.cloud.read(audit) == []


def test_the_last_addresses_go_to_as_many_as_there_are(site: TestCloud) -> None:
    site.heartbeat(vcpus=100, memory_mib=10**5, disk_gib=10**4)
    pool = site.cloud.write(lambda tx: networks.create_network(tx, None, "pool", "10.9.0.0/28").id)
    for _ in range(20):
        site.launch(1, network_id=pool)
    bells = [b.reservation_id for b in site.bus.take(ScheduleReservation)]
    race(lambda n: site.cloud.write(lambda tx: schedule(tx, bells[n * 5 : n * 5 + 5], HostCache())), 4)
    views = site.views()
    placed = [v for v in views if v.state == State.BUILDING]
    assert len(placed) == len({v.ip for v in placed}) == 13
    refused = [v for v in views if v.state == State.ERROR]
    assert [v.ip for v in refused] == [""] * 7
    assert {v.reason_code for v in refused} == {"no_free_address"}
    assert site.cloud.read(lambda tx: audit(tx)) == []
