"""An agent that had lost its journal showed its guests as never told of: a guest that was off stayed ACTIVE for ever,
and after the next boot of its host no agent started the others. Found by the simulation."""

from pathlib import Path

from controller.domain.guests import Desired, Power
from controller.domain.messages import UNKNOWN_GENERATION, GuestState
from controller.domain.states import Event, State
from tests.labs.cloud import TestCloud, place


def test_what_it_sees_is_believed_and_it_is_told_again(tmp_path: Path) -> None:
    site = TestCloud.create(tmp_path)
    try:
        site.heartbeat()
        off, on = site.launch(2)
        place(site)
        site.report([off, on], Event.RUNNING)
        site.clock.advance(60)
        site.commands()
        guests = (
            GuestState(off, UNKNOWN_GENERATION, Power.SHUT_OFF),
            GuestState(on, UNKNOWN_GENERATION, Power.RUNNING),
        )
        site.heartbeat(guests=guests)
        assert {i: site.instance(i).state for i in (off, on)} == {off: State.STOPPED, on: State.ACTIVE}
        told = {g.instance_id: (g.generation, g.desired) for c in site.commands() for g in c.guests}
        assert told == {off: (1, Desired.SHUT_OFF), on: (1, Desired.RUNNING)}
    finally:
        site.close()
