"""A consumer that keeps what it receives, and waits for it."""

import threading
from collections.abc import Callable
from typing import Any

from controller.bus.consumer import QueueConsumer
from controller.bus.dead_letter_consumer import DeadLetterConsumer
from controller.conf import Settings
from controller.domain.messages import Message


class Listener:
    """A consumer with its dead letters, and what they got."""

    def __init__(self, settings: Settings, queues: list[str], handle: Callable[[Message], Message | None]) -> None:
        self.got: list[Message] = []
        self.dead: list[tuple[bytes, dict[str, str]]] = []

        def take(message: Message) -> Message | None:
            self.got.append(message)
            return handle(message)

        self._parts = [
            QueueConsumer(settings, queues, take, name="test"),
            DeadLetterConsumer(settings, lambda body, about: self.dead.append((body, about))),
        ]

    def __enter__(self) -> "Listener":
        for part in self._parts:
            assert part.declare()  # a sender does not declare an agent's queue
            part.start()
        return self

    def __exit__(self, *_: object) -> None:
        for part in self._parts:
            part.stop()
        for part in self._parts:
            part.join(10)


def nothing(_: Message) -> None:
    return None


_WAIT_S = 10


class Got:
    """What arrived, and a wait for it."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._items: list[Any] = []

    def add(self, item: Any) -> None:
        with self._condition:
            self._items.append(item)
            self._condition.notify_all()

    def wait(self, count: int) -> list[Any]:
        with self._condition:
            assert self._condition.wait_for(lambda: len(self._items) >= count, _WAIT_S), self._items
            return list(self._items)
