"""Clocks that are wrong, or step: nobody loses a machine for it, and what waits is not forgotten."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from controller.domain.messages import ReconcileGuests, ScheduleReservation, WireInstances
from controller.domain.states import Event, State
from controller.operations import hosts, sweeps
from controller.operations.audit.audit import audit
from controller.operations.cloud import Transaction
from scheduler.schedule import schedule
from scheduler.view import SiteView
from tests.clouds import TestCloud
from tests.faults import Row, each_row, row

HOUR_S = 3600


@pytest.fixture
def site(tmp_path: Path) -> Iterator[TestCloud]:
    made = TestCloud.create(tmp_path)
    made.heartbeat()
    yield made
    made.close()


def build(site: TestCloud, count: int) -> list[str]:
    ids = site.launch(count)
    for bell in site.bus.take(ScheduleReservation):
        site.cloud.write(lambda tx, b=bell: schedule(tx, [b.reservation_id], SiteView()))  # type: ignore[misc]
    return ids


def sweep(site: TestCloud) -> None:
    def all_of_them(tx: Transaction) -> None:
        sweeps.ring(tx)
        sweeps.expire(tx)
        hosts.mark_lost(tx)
        sweeps.purge(tx)

    site.cloud.write(all_of_them)


@each_row(
    "offset_s",
    {
        "3600": Row("a host's clock is an hour ahead", "while it reports", "nothing: what hosts say is dated by us"),
        "-3600": Row("a host's clock is an hour behind", "while it reports", "nothing: what hosts say is dated by us"),
    },
)
def test_a_hosts_clock_is_off(site: TestCloud, offset_s: str) -> None:
    ids = build(site, 2)
    for said_s in (int(offset_s), 0, int(offset_s) * 2, -int(offset_s)):  # and it steps
        site.heartbeat(at=(site.clock.now + timedelta(seconds=said_s)).isoformat())
        sweep(site)
        site.clock.advance(10)
    site.report(ids, Event.RUNNING)
    sweep(site)
    assert site.states(ids) == [State.ACTIVE] * 2
    assert site.cloud.read(lambda tx: hosts.get_host(tx, "h1").up)
    assert site.cloud.read(audit) == []


@row(
    fault="the controller's clock steps back by an hour",
    strikes="while machines run, are built and are deleted",
    seen="no machine is lost, nothing expires; lost doorbells are rung again as soon as ever, not an hour later",
)
def test_the_controllers_clock_steps_back(site: TestCloud) -> None:
    running = build(site, 2)
    site.report(running, Event.RUNNING)
    building, requested = build(site, 2), site.launch(1)
    site.bus.sent.clear()  # every doorbell is lost
    site.clock.advance(-HOUR_S)
    site.heartbeat()
    sweep(site)
    site.clock.advance(10)
    sweep(site)
    assert [m.instance_ids for m in site.bus.take(WireInstances)] != []
    assert site.bus.take(ScheduleReservation) != []
    assert site.states([*running, *building, *requested]) == [
        *[State.ACTIVE] * 2, *[State.BUILDING] * 2, State.REQUESTED,
    ]  # fmt: skip
    site.report(building, Event.RUNNING)
    assert site.states(building) == [State.ACTIVE] * 2
    assert site.bus.take(ReconcileGuests) == []
    assert site.cloud.read(audit) == []


@row(
    fault="the controller's clock steps forward by an hour",
    strikes="while machines run",
    seen="their hosts are taken for lost and the machines are UNKNOWN until the next heartbeat; no guest is touched",
)
def test_the_controllers_clock_steps_forward(site: TestCloud) -> None:
    running = build(site, 2)
    site.report(running, Event.RUNNING)
    site.bus.sent.clear()
    site.clock.advance(HOUR_S)
    sweep(site)
    assert set(site.states(running)) <= {State.ACTIVE, State.UNKNOWN}
    site.heartbeat()
    site.report(running, Event.RUNNING)
    sweep(site)
    assert site.states(running) == [State.ACTIVE] * 2
    assert site.bus.take(ReconcileGuests) == []
    assert site.cloud.read(audit) == []
