"""A stop that outstayed its deadline and then failed ended in ERROR, and the host was told to remove the guest with
its disk, though only a stop had been requested."""

from pathlib import Path

import pytest

from controller.domain.guests import Power
from controller.domain.messages import GuestState
from controller.domain.states import DEADLINE_S, Event, State
from controller.operations.instances import actions, sweeps
from tests.labs.cloud import TestCloud, place


@pytest.mark.parametrize(("power", "after"), [(Power.RUNNING, State.ACTIVE), (Power.SHUT_OFF, State.STOPPED)])
def test_no_guest_is_removed_for_it(power: Power, after: State, tmp_path: Path) -> None:
    site = TestCloud.create(tmp_path)
    try:
        site.heartbeat()
        (one,) = site.launch()
        place(site)
        site.report([one], Event.RUNNING)
        site.cloud.write(lambda tx: actions.stop(tx, site.project_id, [one]))
        site.clock.advance(DEADLINE_S[State.STOPPING] + 1)
        assert site.cloud.write(sweeps.expire) == 1
        site.commands()
        site.report([one], Event.FAILED, "the hypervisor is out of its mind")
        assert site.states([one]) == [State.UNKNOWN]
        site.heartbeat(guests=(GuestState(one, site.instance(one).generation, power),))
        assert site.states([one]) == [after]
        assert site.commands() == []
    finally:
        site.close()
