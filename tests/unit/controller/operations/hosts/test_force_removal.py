"""A host that is force-removed with its instances, and comes back all the same."""

import pytest

from controller.domain.errors import Conflict
from controller.domain.guests import Desired, Power
from controller.domain.messages import GuestState
from controller.domain.states import State
from controller.operations.audit.audit import audit
from controller.operations.hosts import force_removal, hosts, lost_hosts
from controller.operations.instances import actions
from tests.labs.cloud import TestCloud, active


def lose(site: TestCloud) -> None:
    site.clock.advance(3600)
    assert site.cloud.write(lost_hosts.mark_lost) == ["h1"]


def test_everything_on_it_ends_and_is_given_back(site: TestCloud) -> None:
    runs, deleting, stopping = active(site, 3)
    site.cloud.write(lambda tx: actions.stop(tx, site.project_id, [stopping]))
    lose(site)
    site.cloud.write(lambda tx: actions.terminate(tx, site.project_id, [deleting]))
    assert site.cloud.write(lambda tx: force_removal.force_remove(tx, "h1")) == 3
    assert site.states([runs, deleting, stopping]) == [State.ERROR, State.DELETED, State.ERROR]
    assert "host h1 was force-removed" in site.instance(runs).reason
    assert site.views([runs])[0].ip == ""
    assert site.cloud.read(hosts.list_hosts) == []
    assert site.cloud.read(audit) == []


def test_its_guests_go_at_the_second_look_and_keep_their_disks(site: TestCloud) -> None:
    (one,) = active(site)
    generation = site.instance(one).generation
    lose(site)
    site.cloud.write(lambda tx: force_removal.force_remove(tx, "h1"))
    site.bus.sent.clear()
    shown = (GuestState(one, generation, Power.RUNNING),)
    site.heartbeat(guests=shown)
    assert site.commands() == []
    site.heartbeat(guests=shown)
    (command,) = site.commands()
    (guest,) = command.guests
    assert (guest.instance_id, guest.desired, guest.keep_disk) == (one, Desired.ABSENT, True)
    assert guest.generation > generation
    assert command.epoch == site.cloud.read(lambda tx: hosts.get_host(tx, "h1").epoch) == 3
    assert site.states([one]) == [State.ERROR]


def test_a_host_that_is_heard_of_is_not_given_up(site: TestCloud) -> None:
    (one,) = active(site)
    with pytest.raises(Conflict, match="is up; --force removes only hosts that are down"):
        site.cloud.write(lambda tx: force_removal.force_remove(tx, "h1"))
    assert site.states([one]) == [State.ACTIVE]
