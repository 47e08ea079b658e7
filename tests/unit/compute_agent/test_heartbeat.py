"""What an agent says of its host with each heartbeat."""

import pytest

from compute_agent import heartbeat
from compute_agent.agent import Agent
from compute_agent.commands import Handled
from compute_agent.simulated.driver import SimulatedDriver
from controller.bus.unread import Unread
from controller.domain.guests import Desired, Power
from controller.domain.messages import (
    GuestSpec,
    GuestState,
    HostReported,
    ReconcileGuests,
)
from controller.domain.release import RELEASE
from controller.domain.wire import VERSION
from tests.labs.agent import HOST, NOW, guest, instance, work_all
from tests.labs.bus import FakeBus


def order(agent: Agent, *specs: GuestSpec) -> Handled:
    return agent.handle(ReconcileGuests(HOST, specs))


def test_heartbeat_has_all_guests(agent: Agent, driver: SimulatedDriver, bus: FakeBus) -> None:
    order(agent, guest(1, 3), guest(2, 4, Desired.SHUT_OFF))
    work_all(agent)
    driver.spawn(guest(9))
    agent.heartbeat()
    (message,) = bus.sent
    assert isinstance(message, HostReported)
    assert message.at == NOW.isoformat()
    assert message.hypervisor == "simulated"
    assert message.guests == (
        GuestState(instance(1), 3, Power.RUNNING),
        GuestState(instance(9), -1, Power.RUNNING),
    )


def test_a_heartbeat_says_what_the_agent_cannot_read(
    agent: Agent, bus: FakeBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    unread = Unread()
    monkeypatch.setattr(heartbeat, "UNREAD", unread)
    unread.note("MoveGuests")
    agent.recover()
    agent.heartbeat()
    (beat,) = [m for m in bus.sent if isinstance(m, HostReported)]
    assert beat.remarks == ("it cannot read what a newer release sends: MoveGuests (1)",)
    assert (beat.release, beat.speaks) == (RELEASE, VERSION)
