"""Agents' reports: late, doubled, from the wrong host, of failures and of guests that went off."""

import pytest

from controller.domain.guests import Desired, Power
from controller.domain.messages import (
    GuestReport,
    GuestsChanged,
    GuestState,
)
from controller.domain.states import Event, State
from controller.operations.hosts import hosts
from controller.operations.instances import actions, history, sweeps
from controller.operations.instances.reports import apply_reports
from controller.operations.instances.transitions import lock_instances, transition
from tests.labs.cloud import TestCloud, active, place


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
    events = site.cloud.read(lambda tx: [s.event for s in history.explain(tx, ids[0]).events])
    assert events == ["REQUESTED", "PLACED", "RUNNING"]


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


def test_a_failed_removal_is_tried_again_without_end(site: TestCloud) -> None:
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
    events = site.cloud.read(lambda tx: [s.detail for s in history.explain(tx, deleted).events if s.event == "FAILED"])
    assert len(events) == 10
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


def test_a_requested_stop_never_terminates(site: TestCloud) -> None:
    (one,) = site.launch(1, shutdown_behavior="terminate")
    place(site)
    site.report([one], Event.RUNNING)
    site.cloud.write(lambda tx: actions.stop(tx, site.project_id, [one]))
    off(site, one)
    off(site, one)
    assert site.states() == [State.STOPPED]


def test_a_heartbeat_before_the_report_loses_nothing(site: TestCloud) -> None:
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
