"""Which queue a message is in, who declares it, and what becomes of it where there is none."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from kombu import Connection

from controller.bus.bus import Bus
from controller.bus.connection import connect
from controller.bus.consumer import QueueConsumer
from controller.bus.sender import NoReceiverError
from controller.bus.topology import Topology
from controller.conf import Settings
from controller.domain.messages import (
    EVENTS,
    HEARTBEATS,
    HostReported,
    Message,
    ReadConsole,
    ReconcileGuests,
    host_queue,
)
from controller.domain.wire import decode
from tests.labs.bus_listener import Listener, nothing
from tests.labs.cloud import make_settings
from tests.labs.servers.rabbitmq import RabbitMQ
from tests.labs.waiting import wait_for

COMMAND = ReconcileGuests("h1", ())


def heartbeat(sequence: int) -> HostReported:
    return HostReported("h1", "2026-01-01T00:00:00+00:00", "b1", "kvm", 8, 16384, 100, sequence=sequence)


def waiting(settings: Settings, queue: Any) -> list[Message]:
    """What is in a queue, taken out of it."""
    with connect(settings) as connection:
        bound = queue(connection.channel())
        bound.declare()
        found = []
        while (raw := bound.get(no_ack=True)) is not None:
            found.append(decode(raw.body))
    return found


def test_heartbeats_have_a_queue_of_their_own(settings: Settings, bus: Bus) -> None:
    queue = Topology(settings).queue(HEARTBEATS)
    assert waiting(settings, queue) == []
    bus.send(heartbeat(1))
    assert waiting(settings, queue) == [heartbeat(1)]


def test_heartbeats_go_to_the_reports_where_only_release_0_1_listens(settings: Settings, bus: Bus) -> None:
    bus.send_all([heartbeat(1), heartbeat(2)])
    bus.notify([heartbeat(3)])
    with Listener(settings, [EVENTS], nothing) as listener:
        wait_for(lambda: len(listener.got) == 3)
    assert listener.got == [heartbeat(1), heartbeat(2), heartbeat(3)]


def test_a_question_to_an_agent_without_a_queue_is_answered_at_once(bus: Bus) -> None:
    begin = time.monotonic()
    with pytest.raises(NoReceiverError, match=r"compute\.nobody"):
        bus.call(ReadConsole("nobody", "i-1"), 60)
    assert time.monotonic() - begin < 30


def test_a_question_to_an_agent_that_is_silent_ends_in_time(settings: Settings, bus: Bus) -> None:
    QueueConsumer(settings, [host_queue("dumb")], nothing, "dumb").declare()
    with pytest.raises(TimeoutError) as caught:
        bus.call(ReadConsole("dumb", "i-1"), 0.5)
    assert not isinstance(caught.value, NoReceiverError)


def test_a_command_to_an_agent_without_a_queue_is_lost_and_no_error(settings: Settings, bus: Bus) -> None:
    bus.send(COMMAND)
    with Listener(settings, [host_queue("h1")], nothing) as listener:
        wait_for(lambda: _arrives(bus, listener))
    assert COMMAND in listener.got


def test_a_command_waits_for_an_agent_that_has_declared_its_queue(settings: Settings, bus: Bus) -> None:
    assert QueueConsumer(settings, [host_queue("h1")], nothing, "first").declare()
    bus.send(COMMAND)
    with Listener(settings, [host_queue("h1")], nothing) as listener:
        wait_for(lambda: listener.got)
    assert listener.got == [COMMAND]


# --- what only a real broker can do ---


@pytest.fixture
def broker_bus(broker_settings: Settings) -> Iterator[Bus]:
    made = Bus(broker_settings)
    yield made
    made.close()


@pytest.mark.functional
def test_controllers_declare_no_queue_of_a_host(broker_settings: Settings, broker_bus: Bus, rabbitmq: RabbitMQ) -> None:
    broker_bus.send_all([COMMAND, heartbeat(1)])
    names = rabbitmq.ctl("list_queues", "name").split()
    assert Topology(broker_settings).queue(EVENTS).name in names
    assert Topology(broker_settings).queue(host_queue("h1")).name not in names
    assert Topology(broker_settings).durable(host_queue("h1")).name not in names


@pytest.mark.functional
def test_an_agents_queue_is_light_and_its_old_one_is_removed(
    broker_settings: Settings, broker_bus: Bus, rabbitmq: RabbitMQ
) -> None:
    topology = Topology(broker_settings)
    old, new = topology.durable(host_queue("h1")), topology.queue(host_queue("h1"))
    with Connection(broker_settings.bus.url) as connection:
        old(connection.channel()).declare()
    with Listener(broker_settings, [host_queue("h1")], nothing) as listener:
        wait_for(lambda: _arrives(broker_bus, listener))
        wait_for(lambda: old.name not in rabbitmq.ctl("list_queues", "name").split())
        assert f"{new.name}\tclassic\tfalse" in rabbitmq.ctl("list_queues", "name", "type", "durable")
        count = len(listener.got)
        broker_bus.send(COMMAND)
        wait_for(lambda: len(listener.got) > count)


@pytest.mark.functional
def test_old_queues_are_removed_while_the_agent_runs(
    broker_settings: Settings, broker_bus: Bus, rabbitmq: RabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else all commands for ever would be kept in it, on disk, and then end as dead letters."""
    monkeypatch.setattr("controller.bus.consumer._LEAVE_EVERY_S", 0.5)
    old = Topology(broker_settings).durable(host_queue("h1"))
    with Listener(broker_settings, [host_queue("h1")], nothing) as listener:
        wait_for(lambda: _arrives(broker_bus, listener))
        with Connection(broker_settings.bus.url) as connection:
            old(connection.channel()).declare()
        wait_for(lambda: old.name not in rabbitmq.ctl("list_queues", "name").split())


@pytest.mark.functional
def test_an_agent_of_0_1_gets_its_commands(broker_settings: Settings, broker_bus: Bus) -> None:
    old = Topology(broker_settings).durable(host_queue("h1"))
    assert waiting(broker_settings, old) == []
    broker_bus.send(COMMAND)
    assert waiting(broker_settings, old) == [COMMAND]


@pytest.mark.functional
def test_heartbeats_survive_a_new_queue_length(rabbitmq: RabbitMQ, tmp_path: Any) -> None:
    for length in (100, 200):
        settings = make_settings(
            tmp_path,
            bus__url=rabbitmq.url,
            bus__max_heartbeats=length,
            DEFAULT__cloud_id="0ddba117",
            bus__retry_after_s=0.2,
        )
        bus, got = Bus(settings), list[Message]()
        consumer = QueueConsumer(settings, [HEARTBEATS], got.append, "test")
        consumer.start()

        def listens(consumer: QueueConsumer = consumer) -> bool:
            return consumer.listening_since is not None

        def heard(got: list[Message] = got) -> bool:
            return got == [heartbeat(1)]

        wait_for(listens)
        bus.send(heartbeat(1))
        wait_for(heard)
        consumer.stop()
        consumer.join(10)
        bus.close()


@pytest.mark.functional
def test_too_many_heartbeats_push_out_the_oldest(rabbitmq: RabbitMQ, tmp_path: Any) -> None:
    settings = make_settings(
        tmp_path, bus__url=rabbitmq.url, bus__max_heartbeats=100, DEFAULT__cloud_id="0ddba115", bus__retry_after_s=0.2
    )
    topology, bus = Topology(settings), Bus(settings)
    assert waiting(settings, topology.dead_letters()) == []
    assert waiting(settings, topology.queue(HEARTBEATS)) == []
    bus.send_all([heartbeat(n) for n in range(1, 151)])
    bus.close()
    assert waiting(settings, topology.queue(HEARTBEATS)) == [heartbeat(n) for n in range(51, 151)]
    assert waiting(settings, topology.dead_letters()) == []


def _arrives(bus: Bus, listener: Listener) -> bool:
    """What is sent before its receiver has a queue is lost."""
    bus.send(COMMAND)
    return COMMAND in listener.got
