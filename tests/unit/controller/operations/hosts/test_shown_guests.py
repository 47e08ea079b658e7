"""What heartbeats show of guests: lost reports are replaced, old heartbeats change nothing."""

from controller.domain.guests import Desired, Power
from controller.domain.messages import (
    GuestState,
    ReconcileGuests,
)
from controller.domain.states import Event, State
from controller.operations.hosts import hosts, lost_hosts
from controller.operations.instances import actions
from tests.labs.cloud import TestCloud, active, place


def test_guests_of_a_silent_host_are_unknown_until_its_next_heartbeat(site: TestCloud) -> None:
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


def test_a_heartbeat_written_before_the_last_event_changes_nothing(site: TestCloud) -> None:
    (one,) = active(site)
    site.heartbeat(guests=())
    assert site.states() == [State.ACTIVE]
    site.clock.advance(31)
    site.heartbeat(guests=())
    assert site.states() == [State.STOPPED]
    assert "no such guest" in site.instance(one).reason


def test_guests_of_deleted_instances_are_removed_unknown_ones_are_not(site: TestCloud) -> None:
    (one,) = active(site)
    site.cloud.write(lambda tx: actions.terminate(tx, site.project_id, [one]))
    site.report([one], Event.GONE)
    site.bus.sent.clear()
    stranger = "i-fffffffffffffffff"
    site.heartbeat(guests=(GuestState(one, 5, Power.RUNNING), GuestState(stranger, 1, Power.RUNNING)))
    ((guest,),) = [c.guests for c in site.bus.take(ReconcileGuests)]
    assert (guest.instance_id, guest.desired, guest.generation) == (one, Desired.ABSENT, 6)
    assert site.instance(one).generation == 6
