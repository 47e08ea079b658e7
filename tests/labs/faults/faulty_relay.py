"""A relay between the publishers and the queues: it loses, multiplies, delays and reorders messages."""

import heapq
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

from kombu import Connection, Consumer, Producer, Queue

from controller.bus.topology import Topology
from controller.conf.settings import Settings

# What becomes of a message of this kind: after how many seconds each copy arrives; none, and it is lost.
Fate = Callable[[str], Sequence[float]]


class FaultyRelay:
    """Takes the place of some queues at the cloud's exchange; what its ``fate`` lets through goes on to the queue."""

    def __init__(self, settings: Settings, names: Sequence[str], fate: Fate) -> None:
        self._settings = settings
        self._topology = Topology(settings)
        self._names = names
        self._fate = fate
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._late: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._thread = threading.Thread(target=self._run, name="faulty-relay", daemon=True)
        self.seen: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(20), "the relay did not get between"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(20)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        with Connection(self._settings.bus.url) as connection:
            channel, producer = connection.channel(), Producer(connection.channel())
            mirrors = []
            for name in self._names:
                real = self._topology.queue(name)(channel)
                real.declare()
                mirror = Queue(f"{real.name}.relay", self._topology.exchange, name, durable=False, auto_delete=True)
                mirror(channel).declare()
                real.unbind_from(self._topology.exchange, name)
                mirrors.append(mirror)
            with Consumer(channel, mirrors, on_message=partial(self._take, producer), no_ack=True, accept=["json"]):
                self._ready.set()
                while not self._stop.is_set():
                    self._deliver(time.monotonic())
                    self._drain(connection)
                for name in self._names:
                    self._topology.queue(name)(channel).declare()  # which binds it again
                while self._drain(connection):
                    continue
                self._deliver(float("inf"))

    def _drain(self, connection: Connection) -> bool:
        try:
            connection.drain_events(timeout=0.05)
        except TimeoutError:
            return False
        return True

    def _take(self, producer: Producer, message: Any) -> None:
        kind = str(json.loads(message.body).get("kind"))
        self.seen[kind] += 1
        copies = self._fate(kind)
        self.lost[kind] += not copies
        for after_s in copies:
            job: Callable[[], None] = partial(self._pass_on, producer, message)
            heapq.heappush(self._late, (time.monotonic() + after_s, next(self._numbers), job))

    def _pass_on(self, producer: Producer, message: Any) -> None:
        given = message.properties
        producer.publish(
            message.body,
            exchange="",
            routing_key=self._topology.queue(message.delivery_info["routing_key"]).name,
            headers=message.headers,
            content_type="application/json",
            content_encoding="utf-8",
            delivery_mode=2,
            **{name: given[name] for name in ("reply_to", "correlation_id") if name in given},
        )

    def _deliver(self, now: float) -> None:
        while self._late and self._late[0][0] <= now:
            heapq.heappop(self._late)[2]()
