"""Heartbeats that come late, twice, out of order, or from an agent that counts anew."""

import pytest

from controller.db.models import Host
from controller.domain.errors import PoisonMessage
from controller.domain.guests import Power
from controller.domain.messages import GuestState
from controller.domain.states import Event, State
from controller.operations.hosts import hosts, lost_hosts
from controller.operations.hosts.heartbeats import apply_heartbeats
from controller.operations.instances import actions
from tests.labs.cloud import TestCloud, active


def host(site: TestCloud) -> Host:
    return site.cloud.read(lambda tx: hosts.get_host(tx, "h1"))


def stopped(site: TestCloud) -> str:
    (one,) = active(site)
    site.cloud.write(lambda tx: actions.stop(tx, site.project_id, [one]))
    site.report([one], Event.SHUT_OFF)
    return one


def test_a_late_one_does_not_stop_what_runs(site: TestCloud) -> None:
    (one,) = active(site)
    site.clock.advance(31)
    site.heartbeat(sequence=11, guests=(GuestState(one, 1, Power.RUNNING),))
    site.heartbeat(sequence=10, guests=())
    site.heartbeat(sequence=9, guests=(GuestState(one, 1, Power.SHUT_OFF),))
    assert site.states() == [State.ACTIVE]
    site.heartbeat(sequence=12, guests=())
    assert site.states() == [State.STOPPED]


def test_a_late_one_does_not_show_running_what_was_stopped(site: TestCloud) -> None:
    one = stopped(site)
    site.clock.advance(31)
    generation = site.instance(one).generation
    site.heartbeat(sequence=11, guests=(GuestState(one, generation, Power.SHUT_OFF),))
    site.heartbeat(sequence=10, guests=(GuestState(one, generation, Power.RUNNING),))
    assert site.states() == [State.STOPPED]


def test_a_late_one_says_nothing_of_the_host(site: TestCloud) -> None:
    site.heartbeat(sequence=11, vcpus=16, boot_id="b2")
    seen_at = host(site).last_seen_at
    site.clock.advance(5)
    site.heartbeat(sequence=10, vcpus=8, boot_id="b1")
    site.heartbeat(sequence=11, vcpus=8, boot_id="b1")
    assert (host(site).vcpus, host(site).boot_id, host(site).last_seen_at) == (16, "b2", seen_at)


def test_the_highest_of_a_batch_counts(site: TestCloud) -> None:
    beats = [site.beat(sequence=s, vcpus=v) for s, v in ((11, 1), (13, 3), (12, 2))]
    site.cloud.write(lambda tx: apply_heartbeats(tx, beats))
    assert (host(site).vcpus, host(site).heartbeat_sequence) == (3, 13)


def test_old_ones_are_dropped_after_a_pause(site: TestCloud) -> None:
    (one,) = active(site)
    site.heartbeat(sequence=11, guests=(GuestState(one, 1, Power.RUNNING),))
    site.clock.advance(3600)
    site.heartbeat(sequence=10, guests=())
    assert site.states() == [State.ACTIVE]


def test_an_agent_that_counts_anew_is_believed_once_its_host_is_down(site: TestCloud) -> None:
    (one,) = active(site)
    runs = (GuestState(one, 1, Power.RUNNING),)
    site.heartbeat(sequence=1000, guests=runs)
    for sequence in (1, 2, 3, 4, 5):
        site.clock.advance(10)
        site.heartbeat(sequence=sequence, guests=runs)
        assert host(site).up
    assert site.cloud.write(lost_hosts.mark_lost) == ["h1"]
    assert site.states() == [State.UNKNOWN]
    site.heartbeat(sequence=6, guests=runs)
    assert (host(site).up, site.states()) == (False, [State.UNKNOWN])
    site.heartbeat(sequence=7, guests=runs)
    assert (host(site).up, site.states()) == (True, [State.ACTIVE])
    site.heartbeat(sequence=6, guests=())
    assert site.states() == [State.ACTIVE]


def test_a_straggler_of_a_dead_host_does_not_raise_it(site: TestCloud) -> None:
    (one,) = active(site)
    site.heartbeat(sequence=11, guests=(GuestState(one, 1, Power.RUNNING),))
    site.clock.advance(46)
    site.cloud.write(lost_hosts.mark_lost)
    for _ in range(2):
        site.heartbeat(sequence=10, guests=(GuestState(one, 1, Power.RUNNING),))
    assert (host(site).up, site.states()) == (False, [State.UNKNOWN])
    site.heartbeat(sequence=12, guests=(GuestState(one, 1, Power.SHUT_OFF),))
    assert (host(site).up, site.states()) == (True, [State.STOPPED])


@pytest.mark.parametrize("sequence", [-1, 2**63])
def test_a_number_that_cannot_be(site: TestCloud, sequence: int) -> None:
    with pytest.raises(PoisonMessage, match="sequence"):
        site.heartbeat(sequence=sequence)


def test_an_old_expiry_spares_a_newer_build(site: TestCloud) -> None:
    """A site that has more to do than it can: heartbeats from before the boot are read 30 s after it, and later."""
    active(site)
    written = site.clock().isoformat()
    site.clock.advance(40)
    site.heartbeat(sequence=10, at=written, guests=())
    assert site.states() == [State.ACTIVE]
    site.heartbeat(sequence=11, guests=())
    assert site.states() == [State.STOPPED]


def test_a_host_whose_clock_is_far_behind_is_believed_at_last(site: TestCloud) -> None:
    active(site)
    written = site.clock().isoformat()
    site.clock.advance(3600)
    site.heartbeat(sequence=10, at=written, guests=())
    assert site.states() == [State.STOPPED]
