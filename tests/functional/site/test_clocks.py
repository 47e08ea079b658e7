"""Clocks that are wrong, or step: no instance is lost, and what waits is not forgotten."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from controller.domain.clock import Clock
from controller.domain.guests import Power
from controller.domain.messages import GuestState, PrepareNetworks, ReconcileGuests, ScheduleReservation
from controller.domain.states import DEADLINE_S, Event, State
from controller.operations.audit.audit import audit
from controller.operations.audit.run import AuditOptions, run_audit
from controller.operations.hosts import hosts
from controller.operations.instances import actions
from controller.workers.service import ControllerService
from scheduler.host_cache import HostCache
from scheduler.schedule import schedule
from tests.faults import Row, each_row, row
from tests.labs.cloud import TestCloud, TurnedClock

HOUR_S = 3600


@pytest.fixture
def site(tmp_path: Path) -> Iterator[TestCloud]:
    made = TestCloud.create(tmp_path, controller__purge_deleted_after_s=60)
    made.heartbeat()
    yield made
    made.close()


def build(site: TestCloud, count: int) -> list[str]:
    ids = site.launch(count)
    for bell in site.bus.take(ScheduleReservation):
        site.cloud.write(lambda tx, b=bell: schedule(tx, [b.reservation_id], HostCache()))  # type: ignore[misc]
    return ids


def controller(site: TestCloud, clock: Clock | None = None) -> ControllerService:
    """A controller of this cloud that hears its hosts, with a clock of its own."""
    return ControllerService(replace(site.cloud, clock=clock or site.clock), can_hear=lambda: True)


def sweep(site: TestCloud) -> None:
    service = controller(site)
    service.sweep()
    service.purge()


def off_by(site: TestCloud, seconds: float) -> Clock:
    return lambda: site.clock.now + timedelta(seconds=seconds)


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
    stepped = controller(site, off_by(site, -HOUR_S))
    for _ in range(2):
        stepped.sweep()
        stepped.purge()
        site.heartbeat()
        site.clock.advance(10)
    assert [m.instance_ids for m in site.bus.take(PrepareNetworks)] != []
    assert site.bus.take(ScheduleReservation) != []
    assert site.states([*running, *building, *requested]) == [
        *[State.ACTIVE] * 2, *[State.BUILDING] * 2, State.REQUESTED,
    ]  # fmt: skip
    site.report(building, Event.RUNNING)
    sweep(site)
    assert site.states(building) == [State.ACTIVE] * 2
    assert site.bus.take(ReconcileGuests) == []
    assert site.cloud.read(audit) == []


def _lived(site: TestCloud) -> tuple[list[str], dict[str, State]]:
    """Instances in every phase whose time an hour would end, and one that was deleted; the states that they are in."""
    gone = build(site, 1)
    site.report(gone, Event.RUNNING)
    site.cloud.write(lambda tx: actions.terminate(tx, site.project_id, gone))
    site.report(gone, Event.GONE)
    running = build(site, 2)
    site.report(running, Event.RUNNING)
    stopping = running[:1]
    site.cloud.write(lambda tx: actions.stop(tx, site.project_id, stopping))
    building, requested = build(site, 2), site.launch(1)
    ids = [*running, *building, *requested]
    states = dict(zip(ids, site.states(ids), strict=True))
    assert set(states.values()) == {State.ACTIVE, State.STOPPING, State.BUILDING, State.REQUESTED}
    return gone, states


@each_row(
    "ahead_s",
    {
        "3600": Row(
            "a controller's clock is an hour ahead of the database's",
            "while machines run, are built and are stopped, from its first sweep on",
            "nothing expires, no host is taken for lost, no row is removed; its log says so once, and when it is over",
        ),
        "-3600": Row(
            "a controller's clock is an hour behind the database's",
            "while machines run, are built and are stopped, from its first sweep on",
            "the same",
        ),
    },
)
def test_a_controller_whose_clock_is_wrong(tmp_path: Path, database_url: str, ahead_s: str) -> None:
    """On each engine; the time of a real one is its server's."""
    site = TestCloud.create(tmp_path, database_url, controller__purge_deleted_after_s=60)
    if not database_url.startswith("sqlite"):
        site.clock.now = datetime.now(UTC)
        site.cloud = replace(site.cloud, server_clock=None)
    try:
        site.heartbeat()
        gone, states = _lived(site)
        error_s = float(ahead_s)
        clock = TurnedClock(site.clock.now + timedelta(seconds=error_s))
        service = controller(site, clock)
        with capture_logs() as said:
            for _ in range(3):
                service.sweep()
                service.purge()
        assert [(m["log_level"], m["ahead_s"]) for m in said if "ahead_s" in m] == [
            ("error", pytest.approx(error_s, abs=5))
        ]
        assert dict(zip(states, site.states(states), strict=True)) == states
        assert site.cloud.read(lambda tx: hosts.get_host(tx, "h1").up)
        assert len(site.views(gone)) == 1
        assert site.bus.take(ReconcileGuests) != []  # what waits is rung all the same
        clock.advance(-error_s)
        with capture_logs() as said:
            service.sweep()
        assert [m["event"] for m in said if "clock" in m["event"]] == ["our clock and the database's agree again"]
    finally:
        site.close()


@each_row(
    "ahead_s",
    {
        "3600": Row(
            "the clock of one of two controllers is an hour ahead",
            "it hears every heartbeat, the other one none; then the host falls silent",
            "the other takes no living host for lost, and the silent one as soon as ever",
        ),
        "-3600": Row(
            "the clock of one of two controllers is an hour behind",
            "it hears every heartbeat, the other one none; then the host falls silent",
            "the same",
        ),
    },
)
def test_one_of_two_controllers_is_wrong(site: TestCloud, ahead_s: str) -> None:
    running = build(site, 2)
    site.report(running, Event.RUNNING)
    wrong, right = controller(site, off_by(site, float(ahead_s))), controller(site)
    guests = tuple(GuestState(i, 1, Power.RUNNING) for i in running)
    for sequence in range(1, 7):
        wrong.sweep()
        wrong.handle([site.beat(sequence=sequence, guests=guests)])
        right.sweep()
        assert site.states(running) == [State.ACTIVE] * 2
        site.clock.advance(10)
    site.clock.advance(site.cloud.settings.controller.host_down_after_s)
    wrong.sweep()
    assert site.states(running) == [State.ACTIVE] * 2
    right.sweep()
    assert site.states(running) == [State.UNKNOWN] * 2


@row(
    fault="the database's clock is an hour ahead, those of all controllers are right",
    strikes="while machines run, are built and are stopped",
    seen="nothing expires, no host is taken for lost, no row is removed",
)
def test_the_databases_clock_is_ahead(site: TestCloud) -> None:
    gone, states = _lived(site)
    site.cloud = replace(site.cloud, server_clock=off_by(site, HOUR_S))
    for _ in range(2):
        sweep(site)
    assert dict(zip(states, site.states(states), strict=True)) == states
    assert site.cloud.read(lambda tx: hosts.get_host(tx, "h1").up)
    assert len(site.views(gone)) == 1


@row(
    fault="the database's clock is an hour behind for a while",
    strikes="while machines run",
    seen="no host is taken for lost, not when the clocks agree again either; one that is silent then is found",
)
def test_the_databases_clock_is_wrong_for_a_while(site: TestCloud) -> None:
    running = build(site, 2)
    site.report(running, Event.RUNNING)
    server = TurnedClock(site.clock.now - timedelta(seconds=HOUR_S))
    site.cloud = replace(site.cloud, server_clock=server)
    service = controller(site)
    service.sweep()
    guests = tuple(GuestState(i, 1, Power.RUNNING) for i in running)
    service.handle([site.beat(guests=guests)])  # dated as the database has it
    server.now = site.clock.now
    service.sweep()
    assert site.states(running) == [State.ACTIVE] * 2
    for clock in (site.clock, server):
        clock.advance(site.cloud.settings.controller.host_down_after_s)
    service.sweep()
    assert site.states(running) == [State.UNKNOWN] * 2


def test_what_a_wrong_clock_dated_in_the_future_is_mended(site: TestCloud) -> None:
    running = build(site, 1)
    site.clock.advance(HOUR_S)
    site.report(running, Event.RUNNING)
    site.clock.advance(-HOUR_S)
    site.heartbeat(guests=())
    assert site.states(running) == [State.STOPPED]


@row(
    fault="the clock is an hour ahead where `pileus audit --repair` runs",
    strikes="while machines are built",
    seen="what seems overdue is not ended, and the command says why",
)
def test_a_repair_where_the_clock_is_wrong(site: TestCloud) -> None:
    building = build(site, 2)
    wrong = replace(site.cloud, clock=off_by(site, HOUR_S))
    report = run_audit(wrong, AuditOptions(repair=True, observed=False), pause=lambda _: None)
    assert "nothing overdue was ended: the clock here and the database's differ by 3600 s" in report.notes
    assert site.states(building) == [State.BUILDING] * 2


def test_what_is_overdue_ends_where_the_clock_is_right(site: TestCloud) -> None:
    building = build(site, 2)
    site.clock.advance(DEADLINE_S[State.BUILDING])
    site.heartbeat()
    sweep(site)
    assert site.states(building) == [State.ERROR] * 2
