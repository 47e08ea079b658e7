"""The bus on a real broker and in memory: redelivery, poison, calls, a broker that goes and comes back."""

import threading
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest
from kombu import Connection, Producer

from controller.bus.batch_consumer import BatchConsumer
from controller.bus.bus import Bus
from controller.bus.connection import connect
from controller.bus.consumer import QueueConsumer
from controller.bus.dead_letter_consumer import DeadLetterConsumer
from controller.bus.topology import Topology
from controller.conf import Settings
from controller.domain.errors import BusUnavailable, PoisonMessage, Unavailable
from controller.domain.messages import ConsoleRead, Message, PrepareNetworks, ReadConsole, ScheduleReservation
from tests.labs.bus_listener import Listener, nothing
from tests.labs.servers.rabbitmq import RabbitMQ
from tests.labs.waiting import wait_for

BELL = ScheduleReservation("r-0123456789abcdef0")


def test_a_message_waits_for_its_consumer(settings: Settings, bus: Bus) -> None:
    bus.send(BELL)
    with Listener(settings, ["schedule"], nothing) as listener:
        wait_for(lambda: listener.got)
    assert listener.got == [BELL]


def test_a_call_gets_its_answer(settings: Settings, bus: Bus) -> None:
    def answer(message: Message) -> Message:
        assert isinstance(message, ReadConsole)
        return ConsoleRead(message.instance_id, "aGk=")

    with Listener(settings, ["compute.h1"], answer):
        answers = [bus.call(ReadConsole("h1", f"i-{n}"), 10) for n in range(3)]
    assert answers == [ConsoleRead(f"i-{n}", "aGk=") for n in range(3)]


def test_call_without_an_answer_ends_in_time(bus: Bus) -> None:
    with pytest.raises(TimeoutError):
        bus.call(ReadConsole("nobody", "i-1"), 1)


def test_a_failing_handler_ends_in_a_dead_letter(settings: Settings, bus: Bus) -> None:
    def fail(_: Message) -> None:
        raise RuntimeError("a bug")

    with Listener(settings, ["schedule"], fail) as listener:
        bus.send(BELL)
        wait_for(lambda: listener.dead)
    assert listener.got == [BELL] * 3
    ((body, about),) = listener.dead
    assert b"r-0123456789abcdef0" in body
    assert about == {"queue": "schedule", "reason": "RuntimeError: a bug"}


def test_an_unreadable_message_is_dead_at_once(settings: Settings, bus: Bus) -> None:
    topology = Topology(settings)
    with connect(settings) as connection, Producer(connection.channel()) as producer:
        producer.publish(
            '{"kind":"Nonsense"}',
            exchange=topology.exchange,
            routing_key="schedule",
            declare=[topology.queue("schedule")],
            content_type="application/json",
            content_encoding="utf-8",
        )
    bus.send(BELL)
    with Listener(settings, ["schedule"], nothing) as listener:
        wait_for(lambda: listener.dead and listener.got)
    assert listener.got == [BELL]
    assert listener.dead[0][1]["reason"] == "Message refused: unknown kind 'Nonsense'."


def test_message_without_a_handler_is_a_dead_letter_at_once(settings: Settings, bus: Bus) -> None:
    def refuse(message: Message) -> None:
        raise PoisonMessage(reason=f"{message.KIND} is not for me")

    with Listener(settings, ["network"], refuse) as listener:
        bus.send(PrepareNetworks(()))
        wait_for(lambda: listener.dead)
    assert len(listener.got) == 1


def test_while_the_database_is_away_the_message_is_held_not_lost(settings: Settings, bus: Bus) -> None:
    away = threading.Event()
    done: list[Message] = []

    def handle(message: Message) -> None:
        if not away.is_set():
            raise Unavailable(what="The database", reason="away")
        done.append(message)

    with Listener(settings, ["schedule"], handle) as listener:
        bus.send(BELL)
        wait_for(lambda: len(listener.got) >= 2)
        away.set()
        wait_for(lambda: done)
    assert done == [BELL]
    assert listener.dead == []


def test_far_more_than_one_batch_holds_is_handled_to_the_end(settings: Settings, bus: Bus) -> None:
    batches: list[Sequence[Message]] = []
    bells = [ScheduleReservation(f"r-{n:017x}") for n in range(settings.bus.batch * 3 + 1)]
    consumer = BatchConsumer(settings, ["schedule"], batches.append, name="test")
    bus.send_all(bells)
    consumer.start()
    try:
        wait_for(lambda: sum(map(len, batches)) == len(bells))
    finally:
        consumer.stop()
        consumer.join(10)
    assert [bell for batch in batches for bell in batch] == bells
    assert len(batches) < len(bells) / 10


def test_batch_failure_isolates_bad_message(settings: Settings, bus: Bus) -> None:
    batches: list[list[Message]] = []
    dead: list[bytes] = []

    def handle(messages: Sequence[Message]) -> None:
        batches.append(list(messages))
        if any(isinstance(m, PrepareNetworks) for m in messages):
            raise PoisonMessage(reason="not for me")

    bells = [ScheduleReservation(f"r-{n:017x}") for n in range(50)]
    for message in (*bells[:25], PrepareNetworks(()), *bells[25:]):
        bus.send(message)
    consumer = BatchConsumer(settings, ["schedule", "network"], handle, name="batch")
    graves = DeadLetterConsumer(settings, lambda body, _: dead.append(body))
    for part in (consumer, graves):
        part.start()
    good = set(bells)
    wait_for(lambda: dead and good <= {m for b in batches for m in b})
    for part in (consumer, graves):
        part.stop()
    for part in (consumer, graves):
        part.join(10)
    assert max(len(b) for b in batches) > 10
    assert len(dead) == 1


def test_equal_doorbells_are_sent_once(settings: Settings, bus: Bus) -> None:
    bus.notify([BELL] * 20)
    with Listener(settings, ["schedule"], nothing) as listener:
        bus.send(ScheduleReservation("r-last"))
        wait_for(lambda: ScheduleReservation("r-last") in listener.got)
        wait_for(lambda: BELL in listener.got)
    assert listener.got.count(BELL) <= 2


# --- what only a real broker can do ---


@pytest.mark.functional
def test_a_message_whose_consumer_dies_is_delivered_again(broker_settings: Settings) -> None:
    """The consumer's connection goes before the acknowledgement."""
    bus = Bus(broker_settings)
    bus.send(BELL)
    queue = Topology(broker_settings).queue("schedule")
    with Connection(broker_settings.bus.url) as connection:
        message = queue(connection.channel()).get()
        assert message is not None
    with Listener(broker_settings, ["schedule"], nothing) as listener:
        wait_for(lambda: listener.got)
    bus.close()
    assert listener.got == [BELL]


@pytest.mark.functional
def test_a_message_that_is_held_for_long_is_delivered_once(broker_settings: Settings) -> None:
    """Longer than two heartbeats: each delivery counts towards the limit of the broker's dead letters."""
    settings = replace(broker_settings, bus=replace(broker_settings.bus, heartbeat_s=3))
    away = threading.Event()
    tried: list[float] = []

    def handle(_: Message) -> None:
        tried.append(time.monotonic())
        if not away.is_set():
            raise Unavailable(what="The database", reason="away")

    bus = Bus(settings)
    consumer = QueueConsumer(settings, ["schedule"], handle, name="test")
    try:
        bus.send(BELL)
        consumer.start()
        wait_for(lambda: tried)
        connected_since = consumer.listening_since
        wait_for(lambda: tried[-1] - tried[0] > 3 * settings.bus.heartbeat_s)
        away.set()
        bus.send(BELL)
        count = len(tried)
        wait_for(lambda: len(tried) == count + 2)
        assert consumer.listening_since == connected_since
    finally:
        consumer.stop()
        consumer.join(10)
        bus.close()


def test_queues_are_quorum_queues(broker_settings: Settings, rabbitmq: RabbitMQ) -> None:
    bus = Bus(broker_settings)
    bus.send(BELL)
    bus.close()
    name = Topology(broker_settings).queue("schedule").name
    assert f"{name}\tquorum" in rabbitmq.ctl("list_queues", "name", "type")


@pytest.mark.functional
def test_the_broker_may_go_and_come_back(broker_settings: Settings, rabbitmq: RabbitMQ) -> None:
    bus = Bus(broker_settings)
    with Listener(broker_settings, ["schedule"], nothing) as listener:
        bus.send(BELL)
        wait_for(lambda: len(listener.got) == 1)
        rabbitmq.wait_durable(Topology(broker_settings).queue("schedule").name)
        rabbitmq.kill()
        begin = time.monotonic()
        with pytest.raises(BusUnavailable):
            bus.send(BELL)
        bus.notify([BELL] * 100)  # never raises, never waits for each one
        assert time.monotonic() - begin < 30  # a bound, not a measurement
        rabbitmq.start()
        wait_for(lambda: _sent(bus), 60)
        wait_for(lambda: len(listener.got) >= 2, 60)
    bus.close()


def _sent(bus: Bus) -> bool:
    try:
        bus.send(BELL)
    except BusUnavailable:
        return False
    return True
