"""All hosts are down at once: an outage of the site, for which no accepted request is refused."""

from controller.domain.states import Event, State
from controller.operations.hosts import hosts, lost_hosts
from controller.operations.instances import sweeps
from scheduler.host_cache import HostCache
from scheduler.schedule import schedule
from tests.labs.cloud import TestCloud


def schedule_all(site: TestCloud) -> int:
    reservations = {v.reservation_id for v in site.views()}
    return site.cloud.write(lambda tx: schedule(tx, reservations, HostCache()))


def lose_hosts(site: TestCloud) -> list[str]:
    site.clock.advance(site.cloud.settings.controller.host_down_after_s + 1)
    return site.cloud.write(lost_hosts.mark_lost)


def test_requests_wait_until_one_is_back(site: TestCloud) -> None:
    site.heartbeat("h2")
    ids = site.launch(2)
    assert lose_hosts(site) == ["h1", "h2"]
    assert schedule_all(site) == 0
    assert site.states(ids) == [State.REQUESTED] * 2
    site.clock.advance(10)
    assert site.cloud.write(sweeps.notify) == 2
    site.heartbeat("h2")
    assert schedule_all(site) == 2
    site.report(ids, Event.RUNNING)
    assert site.states(ids) == [State.ACTIVE] * 2


def test_requests_wait_until_their_deadline_at_most(site: TestCloud) -> None:
    (one,) = site.launch()
    lose_hosts(site)
    schedule_all(site)
    site.clock.advance(121)
    assert site.cloud.write(sweeps.expire) == 1
    assert site.states([one]) == [State.ERROR]
    assert "all hosts were down" in site.instance(one).reason


def test_with_one_host_up_requests_are_refused(site: TestCloud) -> None:
    (one,) = site.launch()
    lose_hosts(site)
    site.heartbeat("h2", vcpus=1, memory_mib=16)
    schedule_all(site)
    assert site.states([one]) == [State.ERROR]
    assert "down: no heartbeat" in site.instance(one).reason


def test_a_cloud_without_hosts_says_so(site: TestCloud) -> None:
    (one,) = site.launch()
    site.cloud.write(lambda tx: hosts.remove_host(tx, "h1"))
    schedule_all(site)
    assert site.states([one]) == [State.ERROR]
    assert "there is no host" in site.instance(one).reason
