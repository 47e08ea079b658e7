"""Sweeps: lost doorbells are sent again, overdue instances end, old rows are purged."""

import pytest
from sqlalchemy import update

from controller.cli import status
from controller.db.models import Instance
from controller.domain.errors import InstanceNotFound
from controller.domain.guests import Desired
from controller.domain.messages import (
    GuestReport,
    GuestsChanged,
    PrepareNetworks,
    ScheduleReservation,
)
from controller.domain.states import Event, State
from controller.operations.audit.instances import overdue_deletes
from controller.operations.hosts import hosts
from controller.operations.instances import actions, history, sweeps
from controller.workers.service import ControllerService
from tests.labs.cloud import TestCloud, active, place


def test_every_lost_doorbell_is_sent_again(site: TestCloud) -> None:
    site.bus.down = True
    (one,) = site.launch(1)
    site.bus.down = False
    assert site.cloud.write(sweeps.notify) == 0
    site.clock.advance(6)
    assert site.cloud.write(sweeps.notify) == 1
    site.bus.down = True
    place_all = place(site)
    assert place_all == [1]
    site.bus.down = False
    site.clock.advance(6)
    site.cloud.write(sweeps.notify)
    assert [m.instance_ids for m in site.bus.take(PrepareNetworks)] == [(one,)]
    site.report([one], Event.RUNNING)
    site.bus.down = True
    site.cloud.write(lambda tx: actions.terminate(tx, site.project_id, [one]))
    site.bus.down = False
    site.clock.advance(6)
    site.cloud.write(sweeps.notify)
    assert [g.desired for c in site.commands() for g in c.guests] == [Desired.ABSENT]


def test_doorbells_come_at_growing_intervals(site: TestCloud) -> None:
    site.launch(1)
    notified = 0
    for _ in range(110):
        site.clock.advance(1)
        notified += site.cloud.write(sweeps.notify)
    assert 3 <= notified <= 6


def test_while_hosts_are_busy_a_doorbell_waits_longer(site: TestCloud) -> None:
    site.launch(1)
    site.clock.advance(6)
    assert site.cloud.write(lambda tx: sweeps.notify(tx, busy=True)) == 0
    site.clock.advance(60)
    assert site.cloud.write(lambda tx: sweeps.notify(tx, busy=True)) == 1


def test_a_busy_controller_notifies_later(site: TestCloud) -> None:
    (one,) = active(site)
    report = GuestReport(one, site.instance(one).generation, Event.RUNNING)
    controller = ControllerService(site.cloud)
    site.launch(1)
    site.bus.sent.clear()
    site.clock.advance(6)
    controller.handle([GuestsChanged("h1", (report,))] * 300)
    controller.sweep()
    assert site.bus.take(ScheduleReservation) == []
    controller.sweep()
    assert len(site.bus.take(ScheduleReservation)) == 1


def test_no_more_notifications_than_hosts_answer(site: TestCloud) -> None:
    site.heartbeat(vcpus=2000, memory_mib=10**6, disk_gib=10**5)
    ids = site.launch(1000)
    (bell,) = site.bus.take(ScheduleReservation)
    site.cloud.write(lambda tx: tx.session.execute(update(Instance).values(ring_at=tx.now)))
    controller = ControllerService(site.cloud)
    notified = []
    for reports in (0, 0, 90, 0):
        report = GuestReport(ids[0], 0, Event.RUNNING)
        controller.handle([GuestsChanged("h1", (report,))] * reports)
        controller.sweep()
        notified.append(site.cloud.read(lambda tx: tx.session.query(Instance).filter(Instance.rings > 0).count()))
    assert notified == [500, 600, 780, 880]
    assert bell.reservation_id == site.instance(ids[0]).reservation_id


def test_an_expired_instance_ends_with_a_reason(site: TestCloud) -> None:
    (one,) = site.launch(1)
    site.clock.advance(121)
    assert site.cloud.write(sweeps.expire) == 1
    assert site.states() == [State.ERROR]
    assert "no scheduler placed it in time" in site.instance(one).reason


def test_a_delete_that_is_overdue_waits_for_its_host_and_ends_deleted(site: TestCloud) -> None:
    (one,) = active(site)
    site.cloud.write(lambda tx: actions.terminate(tx, site.project_id, [one]))
    since = site.instance(one).state_since
    for _ in range(3):
        site.clock.advance(601)
        site.cloud.write(sweeps.expire)
    assert site.states() == [State.DELETING]
    assert site.instance(one).state_since == since
    events = site.cloud.read(lambda tx: [s.event for s in history.explain(tx, one).events])
    assert events.count("EXPIRED") == 1
    (violation,) = site.cloud.read(overdue_deletes)
    assert site.cloud.read(status._count)["overdue"] == {State.DELETING: 1}
    assert (violation.subject, violation.what) == (
        one,
        "DELETING for 1803 s: h1 has not said that it is gone, and is up",
    )
    assert site.cloud.read(lambda tx: hosts.get_host(tx, "h1").vcpus_used) == 1
    site.clock.advance(61)
    site.cloud.write(sweeps.notify)
    assert [g.desired for c in site.commands() for g in c.guests][-1:] == [Desired.ABSENT]
    site.report([one], Event.GONE)
    assert site.states() == [State.DELETED]
    assert site.cloud.read(lambda tx: hosts.get_host(tx, "h1").vcpus_used) == 0


def test_deleted_rows_are_purged_with_their_history(site: TestCloud) -> None:
    ids = active(site, 2)
    site.cloud.write(lambda tx: actions.terminate(tx, site.project_id, ids))
    site.report(ids, Event.GONE)
    site.clock.advance(3700)
    assert site.views() == []
    site.clock.advance(86400)
    assert site.cloud.write(sweeps.purge) == 2
    with pytest.raises(InstanceNotFound):
        site.cloud.read(lambda tx: history.explain(tx, ids[0]))
