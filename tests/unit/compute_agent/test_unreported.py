"""Results and outdated requests are reported until the broker has them."""

from compute_agent.agent import Agent
from compute_agent.commands import Handled
from controller.domain.guests import Desired
from controller.domain.messages import (
    GuestsChanged,
    GuestSpec,
    OutdatedRequest,
    ReconcileGuests,
)
from controller.domain.states import Event
from tests.labs.agent import HOST, guest, instance, work_all
from tests.labs.bus import FakeBus


def order(agent: Agent, *specs: GuestSpec) -> Handled:
    return agent.handle(ReconcileGuests(HOST, specs))


def events(bus: FakeBus) -> list[tuple[str, int, Event]]:
    return [(r.instance_id, r.generation, r.event) for r in bus.reports()]


def test_while_the_bus_is_down_results_wait(agent: Agent, bus: FakeBus) -> None:
    order(agent, guest())
    work_all(agent)
    bus.down = True
    assert not agent.report()
    bus.down = False
    assert agent.report()
    assert events(bus) == [(instance(1), 1, Event.RUNNING)]


def test_outdated_request_is_reported_until_the_bus_has_it(agent: Agent, bus: FakeBus) -> None:
    order(agent, guest(1, 7))
    work_all(agent)
    assert agent.report()
    bus.sent.clear()
    bus.down = True
    for generation in (3, 4):
        order(agent, guest(1, generation, Desired.ABSENT))
    work_all(agent)
    assert not agent.report()
    bus.down = False
    assert agent.report()
    assert [m.outdated for m in bus.sent if isinstance(m, GuestsChanged)] == [(OutdatedRequest(instance(1), 4, 7),)]
    assert agent.unreported() is None
