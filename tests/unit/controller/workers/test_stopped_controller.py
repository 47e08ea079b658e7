"""A controller that was stopped for a while has not heard hosts that spoke meanwhile."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.operations.hosts import hosts
from controller.workers.service import ControllerService
from tests.labs.cloud import TestCloud

DOWN_AFTER_S = 1


@pytest.fixture
def site(tmp_path: Path) -> Iterator[TestCloud]:
    made = TestCloud.create(tmp_path, controller__host_down_after_s=DOWN_AFTER_S)
    made.heartbeat()
    yield made
    made.close()


def is_up(site: TestCloud) -> bool:
    return site.cloud.read(lambda tx: hosts.get_host(tx, "h1").up)


def listening(site: TestCloud) -> ControllerService:
    made = ControllerService(site.cloud)
    for consumer in (made._events, made._heartbeats):
        consumer.listening_since = time.monotonic() - 1000
    made.sweep()
    return made


def test_a_host_that_falls_silent_is_lost(site: TestCloud) -> None:
    controller = listening(site)
    for _ in range(6):
        assert is_up(site)
        site.clock.advance(0.2)
        controller.sweep()
    assert not is_up(site)


def test_what_came_while_we_were_stopped_is_read_first(site: TestCloud) -> None:
    controller = listening(site)
    site.clock.advance(600)
    controller.sweep()
    assert is_up(site)
    # A host that is still silent after another while is lost.
    deadline = time.monotonic() + 30
    while is_up(site):
        assert time.monotonic() < deadline
        time.sleep(0.05)
        site.clock.advance(0.05)
        controller.sweep()
