"""What a scheduler remembers of the hosts, and when it looks anew."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.db.models import HostMode
from controller.domain.messages import ScheduleReservation
from controller.domain.states import State
from controller.operations.hosts import set_mode
from scheduler.schedule import schedule
from scheduler.view import SiteView
from tests.clouds import TestCloud


@pytest.fixture
def site(tmp_path: Path) -> Iterator[TestCloud]:
    made = TestCloud.create(tmp_path)
    made.heartbeat("h1", memory_mib=256)
    yield made
    made.close()


@pytest.fixture
def view(site: TestCloud) -> SiteView:
    """A view in which no time passes: it remembers the host as it is now."""
    remembered = SiteView(lambda: 0.0)
    site.cloud.read(remembered.refresh)
    return remembered


def place(site: TestCloud, view: SiteView) -> int:
    (bell,) = site.bus.take(ScheduleReservation)
    return site.cloud.write(lambda tx: schedule(tx, [bell.reservation_id], view))


def test_nobody_is_refused_for_what_is_only_remembered(site: TestCloud, view: SiteView) -> None:
    site.heartbeat("h2")
    site.launch(20)
    assert place(site, view) == 20


def test_a_host_that_is_disabled_since_gets_nothing(site: TestCloud, view: SiteView) -> None:
    site.heartbeat("h2", memory_mib=256)
    site.cloud.write(lambda tx: set_mode(tx, "h1", HostMode.DISABLED))
    (instance_id,) = site.launch(1)
    assert place(site, view) == 1
    assert site.instance(instance_id).host_id == "h2"


def test_room_that_somebody_else_took_is_not_given_twice(site: TestCloud, view: SiteView) -> None:
    first = site.launch(2)
    assert place(site, SiteView()) == 2  # another scheduler
    site.heartbeat("h2", memory_mib=256)
    second = site.launch(2)
    assert place(site, view) == 2
    assert {site.instance(i).host_id for i in second} == {"h2"}
    assert site.states(first) == [State.BUILDING] * 2


def test_what_is_remembered_is_read_again_after_a_moment(site: TestCloud) -> None:
    now = [0.0]
    view = SiteView(lambda: now[0])
    assert site.cloud.read(view.refresh)
    assert not site.cloud.read(view.refresh)
    now[0] += 1
    assert site.cloud.read(view.refresh)
