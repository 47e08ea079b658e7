"""Unexpected errors, as a client library has them when a connection collapses: no thread of the bus ends."""

import threading
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from kombu import Producer

from controller.bus import bus as bus_module
from controller.bus import consumer as consumer_module
from controller.bus.bus import Bus
from controller.bus.connection import connect, drain
from controller.bus.consumer import QueueConsumer
from controller.bus.dead_letter_consumer import DeadLetterConsumer
from controller.bus.notifier import Notifier
from controller.bus.topology import Topology
from controller.conf import Settings
from controller.domain.messages import ConsoleRead, Message, ReadConsole, ScheduleReservation
from tests.labs.bus_listener import _WAIT_S, Got
from tests.labs.cloud import make_settings

BELLS = [ScheduleReservation(f"r-{n:017x}") for n in range(3)]


@pytest.fixture
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    cloud_id = f"{zlib.crc32(request.node.nodeid.encode()):08x}"  # queues of its own for each test
    return make_settings(
        tmp_path, bus__url="memory://", DEFAULT__cloud_id=cloud_id, bus__max_attempts=2, bus__retry_after_s=0.01
    )


def fails_once(of: Callable[..., Any]) -> Callable[..., Any]:
    """The function, but its first call ends as a call on a collapsed connection may."""
    failed: list[bool] = []

    def call(*arguments: Any, **options: Any) -> Any:
        if not failed:
            failed.append(True)
            raise AttributeError("'NoneType' object has no attribute 'drain_events'")
        return of(*arguments, **options)

    return call


def test_a_consumer_begins_anew(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer_module, "drain", fails_once(drain))
    got, bus = Got(), Bus(settings)
    consumer = QueueConsumer(settings, ["schedule"], got.add, name="test")
    consumer.start()
    bus.send(BELLS[0])
    assert got.wait(1) == BELLS[:1]
    consumer.stop()
    consumer.join(_WAIT_S)
    bus.close()


@pytest.mark.parametrize("attempts", ["many", -(10**9), 2**62, 2**63 - 1])
def test_a_strangers_header_is_no_number_of_attempts(settings: Settings, attempts: object) -> None:
    """A number far below zero would have been tried for years, one at the end of its range could not be counted up."""

    def fail(_: Message) -> None:
        raise RuntimeError("a bug")

    buried = Got()
    parts = [
        QueueConsumer(settings, ["schedule"], fail, name="test"),
        DeadLetterConsumer(settings, lambda _, about: buried.add(about["reason"])),
    ]
    topology = Topology(settings)
    with connect(settings) as connection, Producer(connection.channel()) as producer:
        producer.publish(
            '{"kind":"ScheduleReservation","reservation_id":"r-1"}',
            exchange=topology.exchange,
            routing_key="schedule",
            declare=[topology.queue("schedule")],
            headers={"x-pileus-attempts": attempts},
            content_type="application/json",
            content_encoding="utf-8",
        )
    for part in parts:
        part.start()
    assert buried.wait(1) == ["RuntimeError: a bug"]
    for part in parts:
        part.stop()
    for part in parts:
        part.join(_WAIT_S)


def test_an_unkept_dead_letter_does_not_block_the_next(settings: Settings) -> None:
    kept = Got()

    def keep(body: bytes, _: dict[str, str]) -> None:
        if b"bad" in body:
            raise ValueError("the database refuses it")
        kept.add(body)

    consumer = DeadLetterConsumer(settings, keep)
    dead = Topology(settings).dead_letters()
    with connect(settings) as connection, Producer(connection.channel()) as producer:
        for body in ("bad", "good"):
            producer.publish(
                body,
                exchange=dead.exchange,
                routing_key=dead.routing_key,
                declare=[dead],
                content_type="application/json",
                content_encoding="utf-8",
            )
    consumer.start()
    assert kept.wait(1) == [b"good"]
    consumer.stop()
    consumer.join(_WAIT_S)


@pytest.mark.parametrize("death", ["nonsense", [], ["nonsense"], [{"routing-keys": "nonsense"}], 7, [{"reason": {}}]])
def test_a_strangers_story_of_a_death_is_kept_with_its_letter(settings: Settings, death: object) -> None:
    """It ended the consumer of the dead letters again and again, as the broker gives it the letter again."""
    kept = Got()
    consumer = DeadLetterConsumer(settings, lambda body, _: kept.add(body))
    dead = Topology(settings).dead_letters()
    with connect(settings) as connection, Producer(connection.channel()) as producer:
        for headers in ({"x-death": death}, {}):
            producer.publish(
                "good",
                exchange=dead.exchange,
                routing_key=dead.routing_key,
                declare=[dead],
                headers=headers,
                content_type="application/json",
                content_encoding="utf-8",
            )
    consumer.start()
    assert kept.wait(2) == [b"good", b"good"]
    consumer.stop()
    consumer.join(_WAIT_S)


def test_notifier_goes_on_after_an_error() -> None:
    rung = Got()

    def publish(messages: Sequence[Message]) -> None:
        rung.add(list(messages))
        if messages[0] == BELLS[0]:
            raise AttributeError("'NoneType' object has no attribute 'send_method'")

    notifier = Notifier(publish, pause_s=0)
    notifier.notify(BELLS[:1])
    rung.wait(1)
    for _ in range(500):  # until the pause is over, doorbells are dropped
        if len(rung.wait(1)) > 1:
            break
        notifier.notify(BELLS[1:2])
        threading.Event().wait(0.01)
    assert rung.wait(2)[-1] == BELLS[1:2]
    notifier.close()


def test_answers_are_received_again(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus_module, "drain", fails_once(drain))
    bus = Bus(settings)
    answering = QueueConsumer(settings, ["compute.h1"], lambda _: ConsoleRead("i-1", "aGk="), name="test")
    answering.start()
    for _ in range(10):
        try:
            answer = bus.call(ReadConsole("h1", "i-1"), 2)
        except TimeoutError:
            continue
        break
    assert answer == ConsoleRead("i-1", "aGk=")
    answering.stop()
    answering.join(_WAIT_S)
    bus.close()
