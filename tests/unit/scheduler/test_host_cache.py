"""What a scheduler caches of hosts and leases, and when it reads them again."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from controller.domain.hosts import HostMode
from controller.domain.lease_file import LeaseFormat, read_leases
from controller.domain.messages import ScheduleReservation
from controller.domain.networks import NetworkKind
from controller.domain.states import Event, State
from controller.operations.cloud import Transaction
from controller.operations.hosts.hosts import set_mode
from controller.operations.hosts.lost_hosts import mark_lost
from controller.operations.instances.actions import terminate
from controller.operations.networks.networks import create_network
from controller.operations.networks.pinned_leases import import_leases
from scheduler.host_cache import HostCache
from scheduler.placement.host_row import HostRow
from scheduler.placement.host_table import HostTable
from scheduler.schedule import schedule
from tests.labs.cloud import TestCloud


@pytest.fixture
def site(tmp_path: Path) -> Iterator[TestCloud]:
    made = TestCloud.create(tmp_path)
    made.heartbeat("h1", memory_mib=256)
    yield made
    made.close()


@pytest.fixture
def cache(site: TestCloud) -> HostCache:
    """A cache in which no time passes: it holds the host as it is now."""
    remembered = HostCache(lambda: 0.0)
    site.cloud.read(remembered.refresh)
    return remembered


def place(site: TestCloud, cache: HostCache) -> int:
    (bell,) = site.bus.take(ScheduleReservation)
    return site.cloud.write(lambda tx: schedule(tx, [bell.reservation_id], cache))


def test_no_refusal_from_cached_hosts_alone(site: TestCloud, cache: HostCache) -> None:
    site.heartbeat("h2")
    site.launch(20)
    assert place(site, cache) == 20


def test_a_host_that_is_disabled_since_gets_nothing(site: TestCloud, cache: HostCache) -> None:
    site.heartbeat("h2", memory_mib=256)
    site.cloud.write(lambda tx: set_mode(tx, "h1", HostMode.DISABLED))
    (instance_id,) = site.launch(1)
    assert place(site, cache) == 1
    assert site.instance(instance_id).host_id == "h2"


def test_room_that_another_scheduler_took_is_not_given_twice(site: TestCloud, cache: HostCache) -> None:
    first = site.launch(2)
    assert place(site, HostCache()) == 2  # another scheduler
    site.heartbeat("h2", memory_mib=256)
    second = site.launch(2)
    assert place(site, cache) == 2
    assert {site.instance(i).host_id for i in second} == {"h2"}
    assert site.states(first) == [State.BUILDING] * 2


def test_hosts_are_read_again_after_a_second(site: TestCloud) -> None:
    now = [0.0]
    cache = HostCache(lambda: now[0])
    assert site.cloud.read(cache.refresh)
    assert not site.cloud.read(cache.refresh)
    now[0] += 1
    assert site.cloud.read(cache.refresh)


class CountingHostTable(HostTable):
    """Counts the rows that it is given."""

    rows_taken = 0

    def refresh(self, rows: Sequence[HostRow]) -> None:
        self.rows_taken += len(rows)
        super().refresh(rows)


def hosts_read(site: TestCloud, cache: HostCache) -> int:
    """How many hosts the cache reads when it is refreshed."""
    assert isinstance(cache.host_table, CountingHostTable)
    before = cache.host_table.rows_taken
    site.cloud.read(cache.refresh)
    return cache.host_table.rows_taken - before


@pytest.fixture
def moving(site: TestCloud) -> tuple[HostCache, list[float]]:
    """A cache of twenty hosts, and its clock."""
    now = [0.0]
    for n in range(2, 21):
        site.heartbeat(f"h{n}", memory_mib=256)
    cache = HostCache(lambda: now[0])
    cache.host_table = CountingHostTable()
    site.cloud.read(cache.refresh)
    for _ in range(2):  # a host registered a moment ago may have been committed after the first read
        site.clock.advance(5)
        now[0] += 5
        site.cloud.read(cache.refresh)
    return cache, now


def test_only_hosts_that_changed_are_read_again(site: TestCloud, moving: tuple[HostCache, list[float]]) -> None:
    cache, now = moving
    now[0] += 5
    assert hosts_read(site, cache) == 0
    ids = site.launch(1)
    place(site, HostCache())  # another scheduler
    site.cloud.write(lambda tx: set_mode(tx, "h20", HostMode.DISABLED))
    for n in range(1, 21):
        site.heartbeat(f"h{n}", memory_mib=256)  # says nothing new
    site.clock.advance(5)
    now[0] += 5
    assert hosts_read(site, cache) == 2
    carrier = cache.host_table.index[site.instance(ids[0]).host_id or ""]
    assert cache.host_table.free[1, carrier] == 256 - 128
    site.clock.advance(5)
    now[0] += 5
    site.cloud.write(lambda tx: terminate(tx, site.project_id, ids))
    site.report(ids, Event.GONE)
    assert hosts_read(site, cache) == 1
    assert cache.host_table.free[1, carrier] == 256


def test_silent_hosts_are_down_in_the_cache(site: TestCloud, moving: tuple[HostCache, list[float]]) -> None:
    cache, now = moving
    site.clock.advance(3600)
    now[0] += 5
    site.cloud.write(mark_lost)
    site.cloud.read(cache.refresh)
    assert cache.host_table.silent


def test_what_a_failed_transaction_took_is_free_again(site: TestCloud, cache: HostCache) -> None:
    site.launch(2)
    (bell,) = site.bus.take(ScheduleReservation)

    def fail(tx: Transaction) -> None:
        assert schedule(tx, [bell.reservation_id], cache) == 2
        cache.forget()
        raise KeyError

    with pytest.raises(KeyError):
        site.cloud.write(fail)
    assert cache.host_table.free[1, 0] == 256
    site.bus.send(bell)
    assert place(site, cache) == 2
    assert cache.host_table.free[1, 0] == 0


def test_groups_that_are_placed_together_do_not_take_the_same_room(site: TestCloud, cache: HostCache) -> None:
    """The second kind finds less room than it wants, so hosts are read again: what the first one took still counts."""
    site.heartbeat("h1", memory_mib=2048, vcpus=8, disk_gib=1000)
    first = site.launch(10)
    site.clock.advance(1)
    second = site.launch(10, zone=site.cloud.settings.api.zone)
    bells = [b.reservation_id for b in site.bus.take(ScheduleReservation)]
    assert site.cloud.write(lambda tx: schedule(tx, bells, cache)) == 10
    assert set(site.states(first)) == {State.BUILDING}
    assert set(site.states(second)) == {State.ERROR}


def pinned(site: TestCloud, hosts: Sequence[str]) -> str:
    """A network with a lease for each of these hosts."""
    network = site.cloud.write(
        lambda tx: create_network(tx, None, "pinned", "10.64.0.0/24", kind=NetworkKind.PINNED)
    ).id
    pin(site, network, hosts)
    return network


def pin(site: TestCloud, network: str, hosts: Sequence[str]) -> None:
    leases = [f"10.64.0.{n},02:00:00:00:00:{n:02x},m{n},{host}" for n, host in enumerate(hosts, 2)]
    file = read_leases("\n".join(["ip,mac,name,hosts", *leases]).encode(), LeaseFormat.CSV)
    site.cloud.write(lambda tx: import_leases(tx, network, file))


def test_a_new_host_takes_the_overflow(site: TestCloud, cache: HostCache) -> None:
    network = pinned(site, ["h1"] * 2)
    site.cloud.read(lambda tx: cache.leases(tx, network))
    site.heartbeat("h2", memory_mib=256)
    pin(site, network, ["h1", "h1", "h2"])
    site.launch(3, network_id=network)
    assert place(site, cache) == 3


def test_leases_that_another_scheduler_took_cost_no_transaction_each(site: TestCloud) -> None:
    site.heartbeat("h1", memory_mib=8192, vcpus=64)
    cache = HostCache(lambda: 0.0)
    network = pinned(site, ["h1"] * 40)
    site.cloud.read(cache.refresh)
    site.cloud.read(lambda tx: cache.leases(tx, network))
    site.launch(30, network_id=network)
    assert place(site, HostCache()) == 30
    site.launch(1, network_id=network)
    (bell,) = site.bus.take(ScheduleReservation)
    begun = []

    def work(tx: Transaction) -> int:
        begun.append(tx)
        return schedule(tx, [bell.reservation_id], cache)

    assert site.cloud.write(work) == 1
    assert len(begun) == 1


def test_leases_that_came_back_are_found_without_reading_all(site: TestCloud) -> None:
    now = [0.0]
    cache = HostCache(lambda: now[0])
    site.heartbeat("h1", memory_mib=4096)
    network = pinned(site, ["h1"] * 4)
    ids = site.launch(4, network_id=network)
    assert place(site, cache) == 4
    known = site.cloud.read(lambda tx: cache.leases(tx, network))
    assert known.free == 0
    site.clock.advance(20)
    site.cloud.write(lambda tx: terminate(tx, site.project_id, ids[:3]))
    site.report(ids[:3], Event.GONE)
    now[0] += 5
    assert site.cloud.read(lambda tx: cache.leases(tx, network)) is known
    assert known.free == 3
    site.launch(3, network_id=network)
    assert place(site, cache) == 3
