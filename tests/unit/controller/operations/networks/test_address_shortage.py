"""Addresses are room like any other: as many reservations as fit are placed, and who is refused holds nothing."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import func, select

from controller.db.models import Claim, Lease, Network
from controller.domain.messages import ScheduleReservation
from controller.domain.states import Event, State
from controller.operations.audit.audit import audit
from controller.operations.cloud import Transaction
from controller.operations.instances.actions import terminate
from controller.operations.networks import networks
from scheduler.host_cache import HostCache
from scheduler.schedule import schedule
from tests.labs.cloud import TestCloud


@pytest.fixture
def site(tmp_path: Path, database_url: str) -> Iterator[TestCloud]:
    made = TestCloud.create(tmp_path, database_url)
    made.heartbeat(vcpus=1000, memory_mib=10**6, disk_gib=10**6)
    yield made
    made.close()


@pytest.fixture
def pool(site: TestCloud) -> str:
    """A network of thirteen addresses."""
    return site.cloud.write(lambda tx: networks.create_network(tx, None, "pool", "10.9.0.0/28").id)


def place_together(site: TestCloud) -> int:
    """All doorbells that wait, in one transaction."""
    bells = [b.reservation_id for b in site.bus.take(ScheduleReservation)]
    return site.cloud.write(lambda tx: schedule(tx, bells, HostCache()))


def held(site: TestCloud, ids: Sequence[str]) -> tuple[int, int]:
    """How many leases and claims these instances hold."""

    def count(tx: Transaction) -> tuple[int, int]:
        leases = select(func.count()).select_from(Lease).where(Lease.instance_id.in_(ids))
        claims = select(func.count()).select_from(Claim).where(Claim.instance_id.in_(ids))
        return tx.session.scalar(leases) or 0, tx.session.scalar(claims) or 0

    return site.cloud.read(count)


def by_state(site: TestCloud) -> dict[State, list[str]]:
    found: dict[State, list[str]] = {}
    for view in site.views():
        found.setdefault(State(view.state), []).append(view.id)
    return found


def test_of_twenty_singles_thirteen_are_placed(site: TestCloud, pool: str) -> None:
    for _ in range(20):
        site.launch(1, network_id=pool)
    assert place_together(site) == 13
    states = by_state(site)
    assert {state: len(ids) for state, ids in states.items()} == {State.BUILDING: 13, State.ERROR: 7}
    assert held(site, states[State.ERROR]) == (0, 0)
    assert len({v.ip for v in site.views(states[State.BUILDING])}) == 13
    refused = [site.instance(i) for i in states[State.ERROR]]
    assert {i.reason_code for i in refused} == {"no_free_address"}
    assert all("pool" in i.reason and "10.9.0.0/28" in i.reason for i in refused)
    assert site.cloud.read(lambda tx: audit(tx)) == []


def test_a_reservation_gets_its_minimum_or_nothing(site: TestCloud, pool: str) -> None:
    first = site.launch(8, network_id=pool)
    site.clock.advance(1)
    whole = site.launch(6, network_id=pool)
    site.clock.advance(1)
    least = site.launch(9, network_id=pool, min_count=4)
    assert place_together(site) == 13
    assert set(site.states(first)) == {State.BUILDING}
    assert set(site.states(whole)) == {State.ERROR}
    assert Counter(site.states(least)) == {State.BUILDING: 5, State.ERROR: 4}
    assert held(site, whole) == (0, 0)
    assert site.cloud.read(lambda tx: audit(tx)) == []


def test_who_is_refused_leaves_the_addresses_to_the_next(site: TestCloud, pool: str) -> None:
    site.launch(8, network_id=pool)
    site.clock.advance(1)
    refused = site.launch(6, network_id=pool)
    assert place_together(site) == 8
    assert set(site.states(refused)) == {State.ERROR}
    assert site.cloud.read(lambda tx: tx.session.get_one(Network, pool).next_offset) == 2 + 8
    more = site.launch(5, network_id=pool)
    assert place_together(site) == 5
    assert set(site.states(more)) == {State.BUILDING}


def test_addresses_that_were_given_back_count(site: TestCloud, pool: str) -> None:
    gone = site.launch(13, network_id=pool)[4:9]
    place_together(site)
    site.cloud.write(lambda tx: terminate(tx, site.project_id, gone))
    site.report(gone, Event.GONE)
    for _ in range(5):
        site.launch(1, network_id=pool)
    site.clock.advance(1)
    late = [*site.launch(1, network_id=pool), *site.launch(1, network_id=pool)]
    assert place_together(site) == 5
    assert site.states(late) == [State.ERROR] * 2
    assert held(site, late) == (0, 0)


def test_a_taken_address_is_refused_with_nothing_held(site: TestCloud, pool: str) -> None:
    site.launch(8, network_id=pool)
    bells = site.bus.take(ScheduleReservation)
    wanted = site.launch(1, network_id=pool, address="10.9.0.4")
    mine = site.bus.take(ScheduleReservation)
    site.cloud.write(lambda tx: schedule(tx, [b.reservation_id for b in bells], HostCache()))
    site.cloud.write(lambda tx: schedule(tx, [b.reservation_id for b in mine], HostCache()))
    assert site.states(wanted) == [State.ERROR]
    refused = site.instance(wanted[0])
    assert refused.reason_code == "no_free_address"
    assert "10.9.0.4" in refused.reason
    assert held(site, wanted) == (0, 0)
    assert site.cloud.read(lambda tx: audit(tx)) == []


def test_a_wanted_address_is_not_given_to_another(site: TestCloud, pool: str) -> None:
    others = site.launch(8, network_id=pool)
    wanted = site.launch(1, network_id=pool, address="10.9.0.4")
    assert place_together(site) == 9
    assert site.views(wanted)[0].ip == "10.9.0.4"
    assert "10.9.0.4" not in {v.ip for v in site.views(others)}


def test_the_audit_finds_a_refused_instance_with_a_lease(site: TestCloud, pool: str) -> None:
    for _ in range(14):
        site.launch(1, network_id=pool)
    place_together(site)
    (refused,) = by_state(site)[State.ERROR]
    lease = {"network_id": pool, "ip": "10.9.0.15", "mac": "52:54:00:01:00:0f", "instance_id": refused}
    site.cloud.write(lambda tx: tx.session.add(Lease(**lease)))
    subjects = {(b.promise, b.subject) for b in site.cloud.read(lambda tx: audit(tx))}
    assert (4, "10.9.0.15") in subjects
