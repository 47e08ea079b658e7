"""Stop, start, reboot and terminate."""

import pytest

from controller.domain.errors import IncorrectInstanceState, InstanceNotFound
from controller.domain.guests import Desired
from controller.domain.states import Event, State
from controller.operations.instances import actions
from tests.labs.cloud import TestCloud, active


def test_stop_start_reboot(site: TestCloud) -> None:
    (one,) = active(site)
    for request, desired, event, during, after in (
        (actions.stop, Desired.SHUT_OFF, Event.SHUT_OFF, State.STOPPING, State.STOPPED),
        (actions.start, Desired.RUNNING, Event.RUNNING, State.STARTING, State.ACTIVE),
        (actions.reboot, Desired.RUNNING, Event.RUNNING, State.REBOOTING, State.ACTIVE),
    ):
        generation = site.instance(one).generation
        site.cloud.write(lambda tx, w=request: w(tx, site.project_id, [one]))  # type: ignore[misc]
        assert site.states() == [during]
        ((guest,),) = [c.guests for c in site.commands()]
        assert guest.desired is desired
        assert guest.reboot is (request is actions.reboot)
        assert guest.generation == generation + 1
        site.report([one], event)
        assert site.states() == [after]


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
