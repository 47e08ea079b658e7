"""Agents' reports and heartbeats: late, doubled, from the wrong host, and what they mend."""

import pytest
from sqlalchemy import update

from controller.cli import status
from controller.db.models import Instance
from controller.domain.errors import IncorrectInstanceState, InstanceNotFound
from controller.domain.guests import Desired, Power
from controller.domain.messages import (
    GuestReport,
    GuestsChanged,
    GuestState,
    PrepareNetworks,
    ReconcileGuests,
    ScheduleReservation,
)
from controller.domain.states import Event, State
from controller.operations.audit.instances import overdue_deletes
from controller.operations.hosts import hosts, lost_hosts
from controller.operations.instances import actions, history, sweeps
from controller.operations.instances.reports import apply_reports
from controller.operations.instances.transitions import lock_instances, transition
from controller.workers.service import ControllerService
from tests.labs.cloud import TestCloud, active, place


def test_stop_start_reboot(site: TestCloud) -> None:
    (one,) = active(site)
    for wish, desired, event, during, after in (
        (actions.stop, Desired.SHUT_OFF, Event.SHUT_OFF, State.STOPPING, State.STOPPED),
        (actions.start, Desired.RUNNING, Event.RUNNING, State.STARTING, State.ACTIVE),
        (actions.reboot, Desired.RUNNING, Event.RUNNING, State.REBOOTING, State.ACTIVE),
    ):
        generation = site.instance(one).generation
        site.cloud.write(lambda tx, w=wish: w(tx, site.project_id, [one]))  # type: ignore[misc]
        assert site.states() == [during]
        ((guest,),) = [c.guests for c in site.commands()]
        assert guest.desired is desired
        assert guest.reboot is (wish is actions.reboot)
        assert guest.generation == generation + 1
        site.report([one], event)
        assert site.states() == [after]


def test_a_report_of_an_older_generation_changes_nothing(site: TestCloud) -> None:
    (one,) = active(site)
    old = site.instance(one).generation
    site.cloud.write(lambda tx: actions.stop(tx, site.project_id, [one]))
    late = GuestsChanged("h1", (GuestReport(one, old, Event.SHUT_OFF),))
    site.cloud.write(lambda tx: apply_reports(tx, [late]))
    assert site.states() == [State.STOPPING]


def test_a_report_from_another_host_changes_nothing(site: TestCloud) -> None:
    (one,) = active(site)
    wrong = GuestsChanged("h9", (GuestReport(one, 99, Event.SHUT_OFF),))
    site.cloud.write(lambda tx: apply_reports(tx, [wrong]))
    assert site.states() == [State.ACTIVE]


def test_a_report_twice_is_once(site: TestCloud) -> None:
    ids = active(site, 2)
    site.report(ids, Event.RUNNING)
    story = site.cloud.read(lambda tx: [s.event for s in history.explain(tx, ids[0]).events])
    assert story == ["REQUESTED", "PLACED", "RUNNING"]


def test_a_guest_that_powers_itself_off_is_stopped(site: TestCloud) -> None:
    (one,) = active(site)
    site.report([one], Event.SHUT_OFF, "the guest powered itself off")
    assert site.states() == [State.STOPPED]
    assert site.instance(one).reason == "the guest powered itself off"


def test_a_failed_build_is_removed_before_its_claim(site: TestCloud) -> None:
    (one,) = site.launch(1)
    place(site)
    site.report([one], Event.FAILED, "no space left")
    assert site.states() == [State.ERROR]
    assert site.instance(one).reason == "no space left"
    assert [g.desired for c in site.commands() for g in c.guests] == [Desired.ABSENT]
    assert site.cloud.read(lambda tx: hosts.get_host(tx, "h1").vcpus_used) == 1
    site.report([one], Event.GONE)
    assert site.states() == [State.ERROR]
    assert site.instance(one).reason == "no space left"
    assert site.cloud.read(lambda tx: hosts.get_host(tx, "h1").vcpus_used) == 0
    site.cloud.write(lambda tx: actions.terminate(tx, site.project_id, [one]))
    assert site.states() == [State.DELETED]


def test_requests_for_many_are_for_all_or_none(site: TestCloud) -> None:
    running, other = active(site, 2)
    site.cloud.write(lambda tx: actions.stop(tx, site.project_id, [other]))
    site.report([other], Event.SHUT_OFF)
    with pytest.raises(IncorrectInstanceState, match=other):
        site.cloud.write(lambda tx: actions.reboot(tx, site.project_id, [running, other]))
    with pytest.raises(InstanceNotFound):
        site.cloud.write(lambda tx: actions.stop(tx, site.project_id, [running, "i-00000000000000000"]))
    with pytest.raises(InstanceNotFound):
        site.cloud.write(lambda tx: actions.stop(tx, "210987654321", [running]))
    assert site.instance(running).state == State.ACTIVE


def test_terminating_twice_is_once(site: TestCloud) -> None:
    (one,) = active(site)
    for _ in range(2):
        site.cloud.write(lambda tx: actions.terminate(tx, site.project_id, [one]))
    site.report([one], Event.GONE)
    answer = site.cloud.write(lambda tx: actions.terminate(tx, site.project_id, [one]))
    assert [(i.id, before) for i, before in answer] == [(one, State.DELETED)]


# --- what is lost and found again ---


def test_every_lost_doorbell_is_rung_again(site: TestCloud) -> None:
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


def test_of_many_that_wait_no_more_are_rung_than_hosts_answer(site: TestCloud) -> None:
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


def test_what_outstays_its_deadline_ends_with_a_reason(site: TestCloud) -> None:
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
    story = site.cloud.read(lambda tx: [s.event for s in history.explain(tx, one).events])
    assert story.count("EXPIRED") == 1
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


def test_a_removal_that_fails_is_tried_again_for_as_long_as_it_takes(site: TestCloud) -> None:
    deleted, failed = active(site, 2)
    site.cloud.write(lambda tx: actions.terminate(tx, site.project_id, [deleted]))
    site.cloud.write(lambda tx: transition(tx, lock_instances(tx, [failed]), Event.HOST_LOST))
    site.report([failed], Event.SHUT_OFF)
    site.cloud.write(lambda tx: transition(tx, lock_instances(tx, [failed]), Event.START, new_generation=True))
    site.cloud.write(lambda tx: transition(tx, lock_instances(tx, [failed]), Event.DELETE, new_generation=True))
    for n in range(30):
        site.bus.sent.clear()
        before = site.instance(deleted).generation
        site.report([deleted, failed], Event.FAILED, f"the disk is busy ({n})")
        assert site.states([deleted, failed]) == [State.DELETING, State.DELETING]
        assert site.instance(deleted).generation == before + 1
        site.clock.advance(61)
        site.cloud.write(sweeps.notify)
        told = {g.instance_id: (g.generation, g.desired) for c in site.commands() for g in c.guests}
        assert told[deleted] == (before + 1, Desired.ABSENT)
    story = site.cloud.read(lambda tx: [s.detail for s in history.explain(tx, deleted).events if s.event == "FAILED"])
    assert len(story) == 10
    site.report([deleted, failed], Event.GONE)
    assert site.states([deleted, failed]) == [State.DELETED] * 2
    assert site.cloud.read(lambda tx: hosts.get_host(tx, "h1").vcpus_used) == 0


def test_a_failed_removal_is_repeated(site: TestCloud) -> None:
    (one,) = site.launch(1)
    place(site)
    site.report([one], Event.FAILED, "no space left")
    site.report([one], Event.FAILED, "the disk is busy")
    assert site.states() == [State.ERROR]
    assert site.instance(one).reason == "no space left"
    site.bus.sent.clear()
    site.clock.advance(61)
    site.cloud.write(sweeps.notify)
    assert [(g.generation, g.desired) for c in site.commands() for g in c.guests] == [(3, Desired.ABSENT)]
    site.report([one], Event.GONE)
    assert site.cloud.read(lambda tx: hosts.get_host(tx, "h1").vcpus_used) == 0


# --- guests that go off by themselves ---


def off(
    site: TestCloud, instance_id: str, cause: str = "shutdown", reason: str = "the guest powered itself off"
) -> None:
    row = site.instance(instance_id)
    report = GuestReport(instance_id, row.generation, Event.SHUT_OFF, reason, cause)
    site.cloud.write(lambda tx: apply_reports(tx, [GuestsChanged(row.host_id or "", (report,))]))


@pytest.mark.parametrize("seen", ["report", "heartbeat"])
@pytest.mark.parametrize("state", [State.BUILDING, State.STARTING, State.REBOOTING])
def test_off_before_running_was_reported_is_stopped_with_its_disk(site: TestCloud, state: State, seen: str) -> None:
    (one,) = site.launch(1)
    place(site)
    if state is not State.BUILDING:
        site.report([one], Event.RUNNING)
    if state is State.STARTING:
        site.report([one], Event.SHUT_OFF)
        site.cloud.write(lambda tx: actions.start(tx, site.project_id, [one]))
    if state is State.REBOOTING:
        site.cloud.write(lambda tx: actions.reboot(tx, site.project_id, [one]))
    assert site.states() == [state]
    site.bus.sent.clear()
    if seen == "report":
        off(site, one)
        assert site.instance(one).reason_code == "instance_initiated_shutdown"
    else:
        guests = (GuestState(one, site.instance(one).generation, Power.SHUT_OFF),)
        site.heartbeat(guests=guests)
        assert site.states() == [state]  # the report may be on its way, and knows why
        site.clock.advance(31)
        site.heartbeat(guests=guests)
    assert site.states() == [State.STOPPED]
    assert site.instance(one).launched_at is not None
    site.clock.advance(1000)
    assert site.cloud.write(sweeps.expire) == 0
    assert site.commands() == []
    site.cloud.write(lambda tx: actions.start(tx, site.project_id, [one]))
    assert site.states() == [State.STARTING]


def test_a_crash_is_no_shutdown(site: TestCloud) -> None:
    (one,) = active(site)
    off(site, one, "crashed", "its process ended unexpectedly")
    assert site.states() == [State.STOPPED]
    assert (site.instance(one).reason_code, site.instance(one).reason) == ("", "its process ended unexpectedly")


@pytest.mark.parametrize(
    ("cause", "behavior", "after"),
    [
        ("shutdown", "terminate", State.DELETING),
        ("shutdown", "stop", State.STOPPED),
        ("crashed", "terminate", State.STOPPED),
        ("destroyed", "terminate", State.STOPPED),
        ("", "terminate", State.STOPPED),
        ("a word of the next release", "terminate", State.STOPPED),
    ],
)
def test_only_a_guests_own_shutdown_terminates(site: TestCloud, cause: str, behavior: str, after: State) -> None:
    (one,) = site.launch(1, shutdown_behavior=behavior)
    place(site)
    site.report([one], Event.RUNNING)
    off(site, one, cause)
    assert site.states() == [after]
    if after is State.DELETING:
        assert site.instance(one).reason_code == "instance_initiated_shutdown"
        off(site, one, cause)  # delivered twice
        site.report([one], Event.GONE)
        assert site.states() == [State.DELETED]


def test_a_stop_that_was_asked_for_never_terminates(site: TestCloud) -> None:
    (one,) = site.launch(1, shutdown_behavior="terminate")
    place(site)
    site.report([one], Event.RUNNING)
    site.cloud.write(lambda tx: actions.stop(tx, site.project_id, [one]))
    off(site, one)
    off(site, one)
    assert site.states() == [State.STOPPED]


def test_a_heartbeat_that_was_quicker_than_the_report_loses_nothing(site: TestCloud) -> None:
    (one,) = site.launch(1, shutdown_behavior="terminate")
    place(site)
    site.report([one], Event.RUNNING)
    site.clock.advance(31)
    site.heartbeat(guests=(GuestState(one, 1, Power.SHUT_OFF),))
    assert site.states() == [State.STOPPED]
    off(site, one)
    assert site.states() == [State.DELETING]


def test_a_guest_removed_unasked_is_in_error(site: TestCloud) -> None:
    for state in (State.BUILDING, State.ACTIVE, State.STOPPED):
        (one,) = site.launch(1)
        place(site)
        if state is not State.BUILDING:
            site.report([one], Event.RUNNING)
        if state is State.STOPPED:
            site.report([one], Event.SHUT_OFF)
        site.report([one], Event.GONE)
        assert site.states([one]) == [State.ERROR]
        assert "its host has removed it with its disk" in site.instance(one).reason
        assert site.cloud.read(lambda tx: hosts.get_host(tx, "h1").vcpus_used) == 0


def test_a_silent_host_is_down_and_its_guests_unknown_until_it_speaks(site: TestCloud) -> None:
    (one,) = active(site)
    site.clock.advance(46)
    assert site.cloud.write(lost_hosts.mark_lost) == ["h1"]
    assert site.states() == [State.UNKNOWN]
    assert site.commands() == []
    generation = site.instance(one).generation
    site.heartbeat(guests=(GuestState(one, generation, Power.RUNNING),))
    assert site.states() == [State.ACTIVE]
    assert site.cloud.read(lambda tx: hosts.get_host(tx, "h1").up)


def test_a_heartbeat_replaces_lost_reports(site: TestCloud) -> None:
    (one,) = site.launch(1)
    place(site)
    site.heartbeat(guests=(GuestState(one, 1, Power.RUNNING),))
    assert site.states() == [State.ACTIVE]
    site.cloud.write(lambda tx: actions.stop(tx, site.project_id, [one]))
    site.heartbeat(guests=(GuestState(one, 1, Power.SHUT_OFF),))
    assert site.states() == [State.STOPPING]
    site.heartbeat(guests=(GuestState(one, 2, Power.SHUT_OFF),))
    assert site.states() == [State.STOPPED]


def test_a_heartbeat_written_before_the_last_event_is_not_believed(site: TestCloud) -> None:
    (one,) = active(site)
    site.heartbeat(guests=())
    assert site.states() == [State.ACTIVE]
    site.clock.advance(31)
    site.heartbeat(guests=())
    assert site.states() == [State.STOPPED]
    assert "no such guest" in site.instance(one).reason


def test_guests_of_deleted_instances_are_sent_away_strangers_are_not(site: TestCloud) -> None:
    (one,) = active(site)
    site.cloud.write(lambda tx: actions.terminate(tx, site.project_id, [one]))
    site.report([one], Event.GONE)
    site.bus.sent.clear()
    stranger = "i-fffffffffffffffff"
    site.heartbeat(guests=(GuestState(one, 5, Power.RUNNING), GuestState(stranger, 1, Power.RUNNING)))
    ((guest,),) = [c.guests for c in site.bus.take(ReconcileGuests)]
    assert (guest.instance_id, guest.desired, guest.generation) == (one, Desired.ABSENT, 6)
    assert site.instance(one).generation == 6


def test_deleted_rows_are_purged_with_all_that_hangs_on_them(site: TestCloud) -> None:
    ids = active(site, 2)
    site.cloud.write(lambda tx: actions.terminate(tx, site.project_id, ids))
    site.report(ids, Event.GONE)
    site.clock.advance(3700)
    assert site.views() == []
    site.clock.advance(86400)
    assert site.cloud.write(sweeps.purge) == 2
    with pytest.raises(InstanceNotFound):
        site.cloud.read(lambda tx: history.explain(tx, ids[0]))
