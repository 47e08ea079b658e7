"""Sends messages: at once and confirmed, or as doorbells that may be lost; and calls that wait for an answer."""

import threading
import time
import uuid
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from typing import Any

import structlog
from kombu import Connection, Consumer

from controller.bus import memory
from controller.bus.connection import BROKER_ERRORS, connect, drain
from controller.bus.notifier import BATCH, Notifier
from controller.bus.publisher import Envelope, Publisher, RefusedError
from controller.bus.sender import NoReceiverError
from controller.bus.topology import Topology, is_light
from controller.conf.settings import Settings
from controller.domain.errors import BusUnavailable, PoisonMessage
from controller.domain.messages import Message
from controller.domain.wire import decode, encode

log = structlog.get_logger(__name__)

# Between attempts while the broker refuses.
_REFUSED_PAUSES_S = (0.1, 0.2, 0.4, 0.8)


class Bus:
    """One process's way to the broker; safe to use from many threads.

    What is sent to an agent that has no queue is lost: it is away, and the sweep notifies it again when it is back.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topology = Topology(settings)
        self._lock = threading.Lock()
        self._publisher = Publisher(settings)
        self._notifier = Notifier(self.send_all, settings.bus.retry_after_s)
        self._calls = _Calls(settings, self._topology)

    def send(self, message: Message) -> None:
        """Publish and wait for the broker's confirmation, ``publish_timeout_s`` at most.

        Raises:
            BusUnavailable: the broker is down, slow or refuses; the message may or may not be there.
        """
        self._deliver([message])

    def send_all(self, messages: Sequence[Message]) -> None:
        """Publish in order and wait until the broker has all of them.

        Raises:
            BusUnavailable: see ``send``; some may be there, some not.
        """
        for n in range(0, len(messages), BATCH):
            self._deliver(messages[n : n + BATCH])

    def notify(self, messages: Iterable[Message]) -> None:
        """Have doorbells published soon, in order; returns at once. After a failure the sweep notifies again."""
        waiting = list(messages)
        if waiting:
            self._notifier.notify(waiting)

    def call(self, message: Message, timeout_s: float) -> Message:
        """Send a question and wait for its answer.

        Raises:
            BusUnavailable: see ``send``.
            TimeoutError: there was no answer in time; NoReceiverError: there will be none.
        """
        with self._calls.expect(timeout_s) as (properties, answer):
            if self._publish([self._envelope(message, properties, mandatory=True)]):
                raise NoReceiverError(f"nothing reads {message.queue} now")
            return answer.result(timeout=timeout_s)

    def close(self) -> None:
        """Publish the doorbells that wait, and close the connections; the bus is not used any more."""
        self._notifier.close()
        self._calls.stop()
        with self._lock:
            self._publisher.close()

    def _deliver(self, messages: Sequence[Message]) -> None:
        returned = self._publish([self._envelope(m) for m in messages])
        if returned:
            self._publish([self._envelope(messages[n], to=messages[n].FALLBACK) for n in returned])

    def _envelope(
        self, message: Message, properties: dict[str, Any] | None = None, *, to: str = "", mandatory: bool = False
    ) -> Envelope:
        name = to or message.queue
        return Envelope(
            encode(message),
            self._topology.exchange,
            name,
            self._topology.sent_to(name),
            mandatory=mandatory or (not to and bool(message.FALLBACK)),
            durable=not is_light(name),
            properties=properties or {},
        )

    def _publish(self, envelopes: Sequence[Envelope]) -> list[int]:
        """Publish; once more on a new connection, as the old one may have died unnoticed while it was idle.

        Answers as ``Publisher.publish`` does. What the broker refuses is sent again for a moment longer: a quorum queue
        that was declared just now, or whose node has gone, has no leader until one is elected.
        """
        pauses_s = iter(_REFUSED_PAUSES_S)
        with self._lock:
            while True:
                try:
                    return self._publish_twice(envelopes)
                except BROKER_ERRORS as error:
                    pause_s = next(pauses_s, None) if isinstance(error, RefusedError) else None
                    if pause_s is None:
                        reason = str(error) or type(error).__name__
                        raise BusUnavailable(what="The message bus", reason=reason) from error
                    time.sleep(pause_s)

    def _publish_twice(self, envelopes: Sequence[Envelope]) -> list[int]:
        try:
            return self._publisher.publish(envelopes)
        except BROKER_ERRORS:
            return self._publisher.publish(envelopes)


class _Expectation:
    """One call under way."""

    def __init__(self, calls: "_Calls") -> None:
        self._calls = calls
        self._id = str(uuid.uuid4())
        self._future: Future[Message] = Future()

    def __enter__(self) -> tuple[dict[str, Any], "Future[Message]"]:
        self._calls.pending[self._id] = self._future
        return {"reply_to": self._calls.reply_key, "correlation_id": self._id}, self._future

    def __exit__(self, *_: object) -> None:
        self._calls.pending.pop(self._id, None)


class _Calls:
    """The thread that receives answers; it starts with the first call."""

    def __init__(self, settings: Settings, topology: Topology) -> None:
        self._settings = settings
        self._name = uuid.uuid4().hex
        self._queue = topology.replies(self._name)
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.pending: dict[str, Future[Message]] = {}

    @property
    def reply_key(self) -> str:
        return f"reply.{self._name}"

    def expect(self, timeout_s: float) -> _Expectation:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="bus-replies", daemon=True)
                self._thread.start()
        if not self._ready.wait(timeout_s):
            raise BusUnavailable(what="The message bus", reason="no queue for answers could be opened")
        return _Expectation(self)

    def stop(self) -> None:
        self._stop.set()
        memory.wake([self._queue.name])
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with connect(self._settings) as connection:
                    self._receive(connection)
            except BROKER_ERRORS as error:
                self._ready.clear()
                log.warning("no answers from the bus, trying again", reason=str(error))
                self._stop.wait(1)
            except Exception:
                self._ready.clear()
                log.exception("no answers from the bus, trying again")
                self._stop.wait(1)

    def _receive(self, connection: Connection) -> None:
        with Consumer(connection, [self._queue], on_message=self._take, no_ack=True, accept=["json"]):
            self._ready.set()
            while not self._stop.is_set():
                drain(connection, self._settings)

    def _take(self, message: Any) -> None:
        future = self.pending.get(message.properties.get("correlation_id"))
        if future is None or future.done():
            return
        try:
            future.set_result(decode(message.body))
        except PoisonMessage as error:
            future.set_exception(error)
