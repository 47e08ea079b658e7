"""What only a newer release can read: counted, shown, a few of it kept, and no harm to what comes with it."""

import zlib
from pathlib import Path

import pytest

from controller.bus import consumer as consumer_module
from controller.bus.batch_consumer import BatchConsumer
from controller.bus.bus import Bus
from controller.bus.connection import connect
from controller.bus.consumer import QueueConsumer
from controller.bus.dead_letter_consumer import DeadLetterConsumer
from controller.bus.topology import Topology
from controller.bus.unread import Unread
from controller.conf import Settings
from controller.domain.messages import ScheduleReservation
from tests.labs.bus_listener import Got
from tests.labs.cloud import make_settings

NEWER = '{"kind": "MoveGuests", "version": 99, "host": "h1"}'
BELLS = [ScheduleReservation(f"r-{n:017x}") for n in range(3)]
_WAIT_S = 10


@pytest.fixture
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    cloud_id = f"{zlib.crc32(request.node.nodeid.encode()):08x}"  # queues of its own for each test
    return make_settings(tmp_path, bus__url="memory://", DEFAULT__cloud_id=cloud_id, bus__linger_ms=200)


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> Unread:
    made = Unread()
    monkeypatch.setattr(consumer_module, "UNREAD", made)
    return made


def put(settings: Settings, *bodies: str) -> None:
    topology = Topology(settings)
    with connect(settings) as connection:
        for body in bodies:
            connection.Producer().publish(
                body,
                exchange=topology.exchange,
                routing_key="schedule",
                declare=[topology.queue("schedule")],
                content_type="application/json",
                content_encoding="utf-8",
            )


@pytest.mark.parametrize("cls", [QueueConsumer, BatchConsumer])
def test_few_of_many_are_kept_and_the_rest_is_carried_out(
    settings: Settings, unread: Unread, cls: type[QueueConsumer]
) -> None:
    got, dead, bus = Got(), Got(), Bus(settings)
    record_dead_letter = DeadLetterConsumer(settings, lambda body, about: dead.add((body.decode(), about["reason"])))
    put(settings, *[NEWER] * 20)
    bus.send(BELLS[0])
    put(settings, *[NEWER] * 20)
    bus.send(BELLS[1])

    def take(messages: object) -> None:
        for message in messages if isinstance(messages, list) else [messages]:
            got.add(message)

    consumer = cls(settings, ["schedule"], take, "test")
    for one in (consumer, record_dead_letter):
        one.start()
    assert got.wait(2) == BELLS[:2]
    kept = dead.wait(10)
    for one in (consumer, record_dead_letter):
        one.stop()
        one.join(_WAIT_S)
    bus.close()
    assert unread.summary() == ["MoveGuests (40)"]
    assert len(kept) == 10
    assert {body for body, _ in kept} == {NEWER}
    assert "A newer release sent MoveGuests (messages of version 99" in kept[0][1]


def test_a_batch_is_handled_together_beside_what_cannot_be_read(settings: Settings, unread: Unread) -> None:
    batches, bus = Got(), Bus(settings)
    bus.send(BELLS[0])
    put(settings, NEWER, '{"kind": "ScheduleReservation"}', "nonsense")
    bus.send(BELLS[1])
    consumer = BatchConsumer(settings, ["schedule"], batches.add, "test")
    consumer.start()
    assert batches.wait(1) == [BELLS[:2]]
    consumer.stop()
    consumer.join(_WAIT_S)
    bus.close()


def test_a_few_of_each_kind_are_kept_in_an_hour() -> None:
    now = 0.0
    unread = Unread(lambda: now)
    assert [unread.note("A") for _ in range(12)] == [True] * 10 + [False] * 2
    assert unread.note("B")
    now = 3600.0
    assert unread.note("A")
    assert unread.summary() == ["A (13)", "B (1)"]


def test_kinds_without_number_are_counted_as_one() -> None:
    unread = Unread()
    for n in range(1000):
        unread.note(f"K{n}")
    assert len(unread.summary()) == 51
    assert "others (950)" in unread.summary()
