"""The simulated broker: what a real one does with queues."""

from collections.abc import Sequence

import pytest

from controller.conf.settings import Bus
from controller.domain.messages import HostAccepted, Message, host_queue
from tests.labs.calm_simulation import calm_simulator, started
from tests.labs.cloud import START
from tests.simulation.bus import Broker
from tests.simulation.simulator import Process, Simulator

_QUEUE = host_queue("h1")
_ONE = HostAccepted("h1", "boot", 1, START.isoformat(), 1, ())


@pytest.fixture
def simulator() -> Simulator:
    return calm_simulator()


def _send(simulator: Simulator, broker: Broker, sender: Process) -> None:
    simulator.run(sender, lambda: broker.bus_of(sender).send(_ONE))
    simulator.run_until(simulator.now + 1)


def test_a_removed_queue_takes_nothing_until_it_is_consumed_again(simulator: Simulator) -> None:
    broker = Broker(simulator, Bus())
    agent, sender = started(simulator, "agent"), started(simulator, "sender")
    taken: list[Message] = []
    broker.consume(agent, _QUEUE, taken.extend)
    agent.cut_off_until = 100.0
    _send(simulator, broker, sender)
    broker.remove_queue(_QUEUE)
    _send(simulator, broker, sender)
    assert broker.idle
    simulator.run_until(100)
    broker.pump_all()
    simulator.run_until(101)
    assert taken == []
    _send(simulator, broker, sender)
    assert taken == [_ONE]


def test_no_consumer_of_a_queue_gets_everything(simulator: Simulator) -> None:
    broker = Broker(simulator, Bus())
    sender = started(simulator, "sender")
    taken: dict[str, int] = {"one": 0, "another": 0}

    def count(name: str, messages: Sequence[Message]) -> None:
        taken[name] += len(messages)

    for name in taken:
        broker.consume(started(simulator, name), _QUEUE, lambda m, name=name: count(name, m))  # type: ignore[misc]
    for _ in range(20):
        _send(simulator, broker, sender)
    assert sum(taken.values()) == 20
    assert min(taken.values()) > 3
