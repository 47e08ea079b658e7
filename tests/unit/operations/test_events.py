"""Agents' reports and heartbeats: late, doubled, from the wrong host, and what they mend."""

import pytest

from controller.domain.errors import IncorrectInstanceState, InstanceNotFound
from controller.domain.messages import (
    Desired,
    GuestReport,
    GuestsChanged,
    GuestState,
    Power,
    ReconcileGuests,
    WireInstances,
)
from controller.domain.states import Event, State
from controller.operations import heartbeats, hosts, instances, sweeps
from controller.operations.events import apply_reports
from tests.clouds import TestCloud
from tests.unit.operations.test_launch import place


def active(site: TestCloud, count: int = 1) -> list[str]:
    ids = site.launch(count)
    place(site)
    site.report(ids, Event.RUNNING)
    assert site.states(ids) == [State.ACTIVE] * count
    site.bus.sent.clear()
    return ids


def test_stop_start_reboot(site: TestCloud) -> None:
    (one,) = active(site)
    for wish, desired, event, during, after in (
        (instances.stop, Desired.SHUT_OFF, Event.SHUT_OFF, State.STOPPING, State.STOPPED),
        (instances.start, Desired.RUNNING, Event.RUNNING, State.STARTING, State.ACTIVE),
        (instances.reboot, Desired.RUNNING, Event.RUNNING, State.REBOOTING, State.ACTIVE),
    ):
        generation = site.instance(one).generation
        site.cloud.write(lambda tx, w=wish: w(tx, site.project_id, [one]))  # type: ignore[misc]
        assert site.states() == [during]
        ((guest,),) = [c.guests for c in site.commands()]
        assert guest.desired is desired
        assert guest.reboot is (wish is instances.reboot)
        assert guest.generation == generation + 1
        site.report([one], event)
        assert site.states() == [after]


def test_a_report_of_an_older_generation_changes_nothing(site: TestCloud) -> None:
    (one,) = active(site)
    old = site.instance(one).generation
    site.cloud.write(lambda tx: instances.stop(tx, site.project_id, [one]))
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
    story = site.cloud.read(lambda tx: [s.event for s in instances.explain(tx, ids[0]).steps])
    assert story == ["REQUESTED", "PLACED", "RUNNING"]


def test_a_guest_that_powers_itself_off_is_stopped(site: TestCloud) -> None:
    (one,) = active(site)
    site.report([one], Event.SHUT_OFF, "the guest powered itself off")
    assert site.states() == [State.STOPPED]
    assert site.instance(one).reason == "the guest powered itself off"


def test_a_build_that_fails_is_cleaned_up_before_the_claim_is_given_back(site: TestCloud) -> None:
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
    site.cloud.write(lambda tx: instances.terminate(tx, site.project_id, [one]))
    assert site.states() == [State.DELETED]


def test_wishes_for_many_are_for_all_or_none(site: TestCloud) -> None:
    running, other = active(site, 2)
    site.cloud.write(lambda tx: instances.stop(tx, site.project_id, [other]))
    site.report([other], Event.SHUT_OFF)
    with pytest.raises(IncorrectInstanceState, match=other):
        site.cloud.write(lambda tx: instances.reboot(tx, site.project_id, [running, other]))
    with pytest.raises(InstanceNotFound):
        site.cloud.write(lambda tx: instances.stop(tx, site.project_id, [running, "i-00000000000000000"]))
    with pytest.raises(InstanceNotFound):
        site.cloud.write(lambda tx: instances.stop(tx, "210987654321", [running]))
    assert site.instance(running).state == State.ACTIVE


def test_terminating_twice_is_once(site: TestCloud) -> None:
    (one,) = active(site)
    for _ in range(2):
        site.cloud.write(lambda tx: instances.terminate(tx, site.project_id, [one]))
    site.report([one], Event.GONE)
    answer = site.cloud.write(lambda tx: instances.terminate(tx, site.project_id, [one]))
    assert [(i.id, before) for i, before in answer] == [(one, State.DELETED)]


# --- what is lost and found again ---


def test_every_lost_doorbell_is_rung_again(site: TestCloud) -> None:
    site.bus.down = True
    (one,) = site.launch(1)
    site.bus.down = False
    assert site.cloud.write(sweeps.ring) == 0
    site.clock.advance(6)
    assert site.cloud.write(sweeps.ring) == 1
    site.bus.down = True
    place_all = place(site)
    assert place_all == [1]
    site.bus.down = False
    site.clock.advance(6)
    site.cloud.write(sweeps.ring)
    assert [m.instance_ids for m in site.bus.take(WireInstances)] == [(one,)]
    site.report([one], Event.RUNNING)
    site.bus.down = True
    site.cloud.write(lambda tx: instances.terminate(tx, site.project_id, [one]))
    site.bus.down = False
    site.clock.advance(6)
    site.cloud.write(sweeps.ring)
    assert [g.desired for c in site.commands() for g in c.guests] == [Desired.ABSENT]


def test_rings_come_at_growing_intervals(site: TestCloud) -> None:
    site.launch(1)
    rung = 0
    for _ in range(110):
        site.clock.advance(1)
        rung += site.cloud.write(sweeps.ring)
    assert 3 <= rung <= 6


def test_what_outstays_its_deadline_ends_with_a_reason(site: TestCloud) -> None:
    (one,) = site.launch(1)
    site.clock.advance(121)
    assert site.cloud.write(sweeps.expire) == 1
    assert site.states() == [State.ERROR]
    assert "no scheduler placed it in time" in site.instance(one).reason


def test_a_delete_that_expires_keeps_its_claim_until_the_host_answers(site: TestCloud) -> None:
    (one,) = active(site)
    site.cloud.write(lambda tx: instances.terminate(tx, site.project_id, [one]))
    site.clock.advance(601)
    site.cloud.write(sweeps.expire)
    assert site.states() == [State.ERROR]
    assert site.cloud.read(lambda tx: hosts.get_host(tx, "h1").vcpus_used) == 1
    site.clock.advance(61)
    site.cloud.write(sweeps.ring)
    assert [g.desired for c in site.commands() for g in c.guests][-1:] == [Desired.ABSENT]
    site.report([one], Event.GONE)
    assert site.cloud.read(lambda tx: hosts.get_host(tx, "h1").vcpus_used) == 0


def test_a_silent_host_is_down_and_its_guests_unknown_until_it_speaks(site: TestCloud) -> None:
    (one,) = active(site)
    site.clock.advance(46)
    assert site.cloud.write(heartbeats.mark_lost) == ["h1"]
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
    site.cloud.write(lambda tx: instances.stop(tx, site.project_id, [one]))
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
    site.cloud.write(lambda tx: instances.terminate(tx, site.project_id, [one]))
    site.report([one], Event.GONE)
    site.bus.sent.clear()
    stranger = "i-fffffffffffffffff"
    site.heartbeat(guests=(GuestState(one, 5, Power.RUNNING), GuestState(stranger, 1, Power.RUNNING)))
    ((guest,),) = [c.guests for c in site.bus.take(ReconcileGuests)]
    assert (guest.instance_id, guest.desired, guest.generation) == (one, Desired.ABSENT, 6)


def test_deleted_rows_are_purged_with_all_that_hangs_on_them(site: TestCloud) -> None:
    ids = active(site, 2)
    site.cloud.write(lambda tx: instances.terminate(tx, site.project_id, ids))
    site.report(ids, Event.GONE)
    site.clock.advance(3700)
    assert site.views() == []
    site.clock.advance(86400)
    assert site.cloud.write(sweeps.purge) == 2
    with pytest.raises(InstanceNotFound):
        site.cloud.read(lambda tx: instances.explain(tx, ids[0]))
