"""Heartbeats that tell nothing new: cheap, and never a reason to overlook what has changed."""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import event

from controller.domain.guests import Power
from controller.domain.messages import GuestState, HostReported
from controller.domain.states import Event, State
from controller.operations.hosts import hosts, lost_hosts
from controller.operations.hosts.unchanged_heartbeats import UnchangedHeartbeats
from controller.operations.instances import actions
from controller.workers.service import ControllerService
from tests.labs.cloud import TestCloud, active

Beat = Callable[..., int]


@pytest.fixture
def controller(site: TestCloud) -> ControllerService:
    return ControllerService(site.cloud)


@pytest.fixture
def counted(site: TestCloud) -> Iterator[list[str]]:
    """The statements that the database has been given."""
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        seen.append(statement)

    event.listen(site.cloud.database.engine, "before_cursor_execute", note)
    yield seen
    event.remove(site.cloud.database.engine, "before_cursor_execute", note)


def beats(site: TestCloud, ids: list[str], sequence: int, power: Power = Power.RUNNING) -> list[HostReported]:
    return [site.beat("h1", sequence=sequence, guests=tuple(GuestState(i, 1, power) for i in ids))]


def last(site: TestCloud) -> tuple[bool, int, object]:
    host = site.cloud.read(lambda tx: hosts.get_host(tx, "h1"))
    return host.up, host.heartbeat_sequence, host.last_seen_at


def test_the_same_again_is_written_down_and_compared_with_nothing(
    site: TestCloud, controller: ControllerService, counted: list[str]
) -> None:
    ids = active(site, 3)
    controller.handle(beats(site, ids, 1))
    counted.clear()
    site.clock.advance(10)
    controller.handle(beats(site, ids, 2))
    assert last(site) == (True, 2, site.clock())
    assert [s.split()[0] for s in counted if "sqlite" not in s][:4] == ["BEGIN", "SELECT", "SELECT", "UPDATE"]
    assert sum("instances.id" in s for s in counted) == 0


def test_a_row_that_changed_is_mended_by_the_same_heartbeat(site: TestCloud, controller: ControllerService) -> None:
    ids = active(site, 2)
    for sequence in (1, 2):
        controller.handle(beats(site, ids, sequence))
    site.cloud.write(lambda tx: actions.stop(tx, site.project_id, ids[:1]))
    site.report(ids[:1], Event.SHUT_OFF)
    site.clock.advance(60)
    running = [GuestState(ids[0], 2, Power.RUNNING), GuestState(ids[1], 1, Power.RUNNING)]
    controller.handle([site.beat("h1", sequence=3, guests=tuple(running))])
    assert site.states(ids) == [State.ACTIVE, State.ACTIVE]
    site.cloud.write(lambda tx: actions.terminate(tx, site.project_id, ids[1:]))
    site.bus.sent.clear()
    before = site.instance(ids[1]).state_since
    controller.handle([site.beat("h1", sequence=4, guests=tuple(running))])
    assert site.instance(ids[1]).state_since == before
    assert last(site)[1] == 4


def test_a_guest_that_went_off_is_noticed(site: TestCloud, controller: ControllerService) -> None:
    ids = active(site, 2)
    for sequence in (1, 2):
        controller.handle(beats(site, ids, sequence))
    site.clock.advance(60)
    controller.handle(beats(site, ids, 3, Power.SHUT_OFF))
    assert site.states(ids) == [State.STOPPED] * 2


def test_a_host_that_was_lost_is_up_again_with_the_same_heartbeat(
    site: TestCloud, controller: ControllerService
) -> None:
    ids = active(site, 2)
    for sequence in (1, 2):
        controller.handle(beats(site, ids, sequence))
    site.clock.advance(60)
    assert site.cloud.write(lost_hosts.mark_lost) == ["h1"]
    assert site.states(ids) == [State.UNKNOWN] * 2
    controller.handle(beats(site, ids, 3))
    assert site.states(ids) == [State.ACTIVE] * 2
    assert last(site)[0]


def test_news_of_another_controller_is_not_ours(site: TestCloud, controller: ControllerService) -> None:
    """The agent was started with other labels, told them to another controller, and was started as before."""
    other = ControllerService(site.cloud)
    controller.handle([site.beat("h1", sequence=1, labels=("ssd",))])
    other.handle([site.beat("h1", sequence=2, labels=("slow",))])
    controller.handle([site.beat("h1", sequence=3, labels=("ssd",))])
    assert site.cloud.read(lambda tx: hosts.get_host(tx, "h1")).labels == "ssd"


def test_a_late_one_is_not_taken(site: TestCloud, controller: ControllerService) -> None:
    ids = active(site)
    for sequence in (1, 5):
        controller.handle(beats(site, ids, sequence))
    seen = last(site)
    site.clock.advance(10)
    controller.handle(beats(site, ids, 4))
    assert last(site) == seen


def test_of_several_only_the_newest_is_remembered(site: TestCloud, controller: ControllerService) -> None:
    ids = active(site)
    controller.handle(beats(site, ids, 1, Power.SHUT_OFF) + beats(site, ids, 2))
    site.clock.advance(60)
    controller.handle(beats(site, ids, 3, Power.SHUT_OFF))
    assert site.states(ids) == [State.STOPPED]


def test_a_stranger_among_the_guests_is_never_taken_for_rest(site: TestCloud, controller: ControllerService) -> None:
    ids = [*active(site), "i-0000000000000dead"]
    for sequence in (1, 2):
        controller.handle(beats(site, ids, sequence))
        assert not controller._quiet.expects(beats(site, ids, 9)[0])


def test_what_is_remembered_is_looked_at_in_full_now_and_then(site: TestCloud) -> None:
    now = 0.0
    quiet = UnchangedHeartbeats(lambda: now)
    message = site.beat("h1")
    assert not quiet.expects(message)
    quiet.remember(message, frozenset())
    assert quiet.expects(message)
    now = 301.0
    assert not quiet.expects(message)
