"""Hosts that fall silent by the thousand: lost part by part, and only for a controller that has read all heartbeats."""

import time

import pytest

from controller.domain.guests import Power
from controller.domain.messages import GuestState
from controller.domain.states import State
from controller.operations.hosts import hosts, lost_hosts
from controller.workers.service import ControllerService
from tests.labs.cloud import TestCloud, active


def test_one_transaction_takes_a_bounded_part(site: TestCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lost_hosts, "LOST_AT_ONCE", 2)
    ids = active(site, 5)
    for n in range(2, 6):
        site.heartbeat(f"h{n}")
    site.clock.advance(60)
    left = [5]
    while site.cloud.write(lost_hosts.mark_lost):
        left.append(site.states(ids).count(State.ACTIVE))
        assert left[-2] - left[-1] <= 2
    assert left[-1] == 0
    assert site.states(ids) == [State.UNKNOWN] * 5
    assert not any(h.up for h in site.cloud.read(hosts.list_hosts))


def test_a_host_that_is_heard_of_meanwhile_is_not_lost(site: TestCloud) -> None:
    ids = active(site, 2)
    site.clock.advance(60)
    site.heartbeat("h1", guests=tuple(GuestState(i, 1, Power.RUNNING) for i in ids))
    assert site.cloud.write(lost_hosts.mark_lost) == []
    assert site.states(ids) == [State.ACTIVE] * 2


@pytest.mark.parametrize("behind", [False, True])
def test_while_heartbeats_wait_no_host_is_lost(site: TestCloud, behind: bool) -> None:
    controller = ControllerService(site.cloud)
    for consumer in (controller._events, controller._heartbeats):
        consumer.listening_since = time.monotonic() - 1000
    if behind:
        controller._heartbeats.behind_at = time.monotonic()
    site.heartbeat()
    controller.sweep()
    for _ in range(4):  # no pause of ours, as far as the controller can see
        site.clock.advance(20)
        controller.sweep()
    assert site.cloud.read(lambda tx: hosts.get_host(tx, "h1").up) is behind
