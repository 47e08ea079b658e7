"""Work that failed is tried again where that may help, a bounded number of times."""

import errno
import os

import pytest

from compute_agent.agent import Agent
from compute_agent.commands import Handled
from compute_agent.errors import HypervisorUnreachable
from compute_agent.retries import ATTEMPTS
from compute_agent.simulated.driver import SimulatedDriver
from controller.domain.errors import DriverError
from controller.domain.guests import Desired, Power
from controller.domain.messages import (
    GuestSpec,
    ReconcileGuests,
)
from controller.domain.states import Event
from tests.labs.agent import HOST, guest, instance, work_all
from tests.labs.bus import FakeBus


def order(agent: Agent, *specs: GuestSpec) -> Handled:
    return agent.handle(ReconcileGuests(HOST, specs))


def events(bus: FakeBus) -> list[tuple[str, int, Event]]:
    return [(r.instance_id, r.generation, r.event) for r in bus.reports()]


def test_what_may_pass_is_tried_again_but_not_for_ever(
    agent: Agent, driver: SimulatedDriver, bus: FakeBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_: object) -> None:
        raise HypervisorUnreachable(what="Starting the guest", reason="libvirt went away")

    monkeypatch.setattr(driver, "spawn", gone)
    order(agent, guest())
    pauses = [agent.work(instance(1)) for _ in range(ATTEMPTS)]
    assert pauses == [1, 2, 4, 8, 16, 30, 30, None]
    agent.report()
    assert events(bus) == [(instance(1), 1, Event.FAILED)]


def test_what_passed_is_not_reported(
    agent: Agent, driver: SimulatedDriver, bus: FakeBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:

        def fails(_: str, **__: object) -> None:
            raise DriverError(what="Destroying the guest", reason="busy")

        order(agent, guest())
        work_all(agent)
        order(agent, guest(1, 2, Desired.ABSENT))
        broken.setattr(driver, "destroy", fails)
        assert agent.work(instance(1)) == 1
        agent.report()
    assert agent.work(instance(1)) is None
    agent.report()
    assert events(bus) == [(instance(1), 2, Event.GONE)]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EAGAIN])
def test_what_the_host_is_short_of_is_waited_for(
    agent: Agent, driver: SimulatedDriver, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    order(agent, guest())
    with monkeypatch.context() as short:

        def spawn(*_: object) -> None:
            try:
                raise OSError(number, os.strerror(number))
            except OSError as error:
                raise DriverError(what="Making the guest", reason="no program could be started") from error

        short.setattr(driver, "spawn", spawn)
        assert agent.work(instance(1))
    assert agent.work(instance(1)) is None
    assert driver.list_guests() == {instance(1): Power.RUNNING}
