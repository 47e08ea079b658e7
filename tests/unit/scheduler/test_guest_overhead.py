"""What a hypervisor needs beside a guest's memory: claimed with it, and given back as it was claimed."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select, update

from compute_agent.libvirt_driver.domain_xml import Virtualization
from compute_agent.libvirt_driver.host import guest_overhead_mib
from compute_agent.simulated.driver import SimulatedDriver, SimulatedSite
from controller.conf import Settings
from controller.db.models import Claim, Host
from controller.domain.errors import InvalidParameter, NoValidHost
from controller.domain.host_facts import check_facts
from controller.domain.messages import ScheduleReservation
from controller.domain.states import Event, State
from controller.operations.audit.hosts import CHECKS
from controller.operations.hosts.hosts import show_host
from controller.operations.instances import actions, history
from scheduler.host_cache import HostCache
from scheduler.schedule import schedule
from tests.labs.cloud import TestCloud

TINY_MIB, OVERHEAD_MIB = 128, 64


@pytest.fixture
def site(tmp_path: Path) -> Iterator[TestCloud]:
    made = TestCloud.create(tmp_path)
    beat(made)
    yield made
    made.close()


def beat(site: TestCloud, overhead_mib: int = OVERHEAD_MIB) -> None:
    """A heartbeat of a host with room for three tiny guests, for two with what they need beside."""
    site.heartbeat("h1", memory_mib=3 * TINY_MIB + 20, guest_overhead_mib=overhead_mib)


def place(site: TestCloud, cache: HostCache | None = None) -> int:
    (bell,) = site.bus.take(ScheduleReservation)
    return site.cloud.write(lambda tx: schedule(tx, [bell.reservation_id], cache or HostCache()))


def used_mib(site: TestCloud) -> int:
    return site.cloud.read(lambda tx: show_host(tx, "h1").host.memory_used_mib)


def claims(site: TestCloud) -> list[tuple[int, int]]:
    query = select(Claim.memory_mib, Claim.overhead_mib)
    return site.cloud.read(lambda tx: [(row[0], row[1]) for row in tx.session.execute(query)])


def violations(site: TestCloud) -> list[str]:
    return site.cloud.read(lambda tx: [b.what for check in CHECKS for b in check(tx)])


def test_it_is_claimed(site: TestCloud) -> None:
    site.launch(2)
    assert place(site) == 2
    assert used_mib(site) == 2 * (TINY_MIB + OVERHEAD_MIB)
    assert claims(site) == [(TINY_MIB + OVERHEAD_MIB, OVERHEAD_MIB)] * 2
    assert violations(site) == []


def test_a_request_is_refused_for_it(site: TestCloud) -> None:
    with pytest.raises(NoValidHost, match="room for 2"):
        site.launch(3)


def test_the_scheduler_refuses_for_it(site: TestCloud) -> None:
    beat(site, 0)
    site.launch(3)
    beat(site)
    (bell,) = site.bus.take(ScheduleReservation)
    placed = site.cloud.write(lambda tx: schedule(tx, [bell.reservation_id], HostCache()))
    assert placed == 0  # all three or none
    assert used_mib(site) == 0
    assert set(site.states()) == {State.ERROR}


def test_a_claim_is_returned_in_every_state_of_the_host(site: TestCloud) -> None:
    ids = site.launch(2)
    place(site)
    beat(site, 7)
    assert violations(site) == []
    site.cloud.write(lambda tx: actions.terminate(tx, None, ids))
    site.report(ids, Event.GONE)
    assert used_mib(site) == 0
    assert claims(site) == []


def test_an_older_overhead_that_a_scheduler_remembers_is_not_claimed(site: TestCloud) -> None:
    cache = HostCache(lambda: 0.0)
    site.cloud.read(cache.refresh)
    site.launch(1)
    beat(site, 30)
    assert place(site, cache) == 1
    assert claims(site) == [(TINY_MIB + 30, 30)]


def test_the_audit_knows_what_a_claim_has_beside_the_guests_memory(site: TestCloud) -> None:
    site.launch(1)
    place(site)
    site.cloud.write(lambda tx: tx.session.execute(update(Claim).values(overhead_mib=OVERHEAD_MIB + 1)))
    assert violations(site) == ["its claim on h1 is not of its size"]


def test_it_is_explained(site: TestCloud) -> None:
    (instance_id,) = site.launch(1)
    place(site)
    explained = site.cloud.read(lambda tx: history.explain(tx, instance_id))
    assert explained.overhead_mib == OVERHEAD_MIB


@pytest.mark.parametrize("wrong", [-1, 2**31])
def test_what_cannot_be_is_refused(site: TestCloud, wrong: int) -> None:
    with pytest.raises(InvalidParameter, match="guest_overhead_mib"):
        check_facts(site.beat("h1", guest_overhead_mib=wrong))


def test_what_the_drivers_say(tmp_path: Path) -> None:
    default = Settings()
    cache_mib = default.compute.tcg_cache_mib
    assert guest_overhead_mib(default, Virtualization.KVM) == 32
    assert guest_overhead_mib(default, Virtualization.QEMU) == 32 + cache_mib
    told = replace(default, compute=replace(default.compute, guest_overhead_mib=5))
    assert guest_overhead_mib(told, Virtualization.QEMU) == 5
    hardware = SimulatedSite(tmp_path / "simulated.db")
    assert SimulatedDriver("h1", default.compute, hardware).capacity().guest_overhead_mib == 0
    assert SimulatedDriver("h1", told.compute, hardware).capacity().guest_overhead_mib == 5
    hardware.close()


def test_a_host_of_an_older_release_says_nothing_of_it(site: TestCloud) -> None:
    site.heartbeat("h2")
    assert site.cloud.read(lambda tx: tx.session.get_one(Host, "h2").guest_overhead_mib) == 0
