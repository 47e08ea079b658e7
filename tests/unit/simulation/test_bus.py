"""The simulated broker: what a real one does with queues."""

from collections.abc import Sequence

import pytest

from controller.conf.settings import Bus
from controller.domain.messages import HostAccepted, Message, host_queue
from tests.clouds import START
from tests.simulation.bus import Broker
from tests.simulation.hub import Hub, Process
from tests.unit.simulation.calm import calm_hub, started

_QUEUE = host_queue("h1")
_ONE = HostAccepted("h1", "boot", 1, START.isoformat(), 1, ())


@pytest.fixture
def hub() -> Hub:
    return calm_hub()


def _send(hub: Hub, broker: Broker, sender: Process) -> None:
    hub.run(sender, lambda: broker.bus_of(sender).send(_ONE))
    hub.run_until(hub.now + 1)


def test_a_removed_queue_takes_nothing_until_it_is_consumed_again(hub: Hub) -> None:
    broker = Broker(hub, Bus())
    agent, sender = started(hub, "agent"), started(hub, "sender")
    taken: list[Message] = []
    broker.consume(agent, _QUEUE, taken.extend)
    agent.cut_off_until = 100.0
    _send(hub, broker, sender)
    broker.remove_queue(_QUEUE)
    _send(hub, broker, sender)
    assert broker.idle
    hub.run_until(100)
    broker.pump_all()
    hub.run_until(101)
    assert taken == []
    _send(hub, broker, sender)
    assert taken == [_ONE]


def test_no_consumer_of_a_queue_gets_everything(hub: Hub) -> None:
    broker = Broker(hub, Bus())
    sender = started(hub, "sender")
    taken: dict[str, int] = {"one": 0, "another": 0}

    def count(name: str, messages: Sequence[Message]) -> None:
        taken[name] += len(messages)

    for name in taken:
        broker.consume(started(hub, name), _QUEUE, lambda m, name=name: count(name, m))  # type: ignore[misc]
    for _ in range(20):
        _send(hub, broker, sender)
    assert sum(taken.values()) == 20
    assert min(taken.values()) > 3
