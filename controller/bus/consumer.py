"""Receives messages: one thread, some queues, one handler for each message."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from amqp.exceptions import PreconditionFailed
from kombu import Connection, Consumer

from controller.bus import memory, repair
from controller.bus.connection import BROKER_ERRORS, connect, drain
from controller.bus.publisher import Envelope, Publisher
from controller.bus.removal import remove_unused
from controller.bus.topology import DEAD, Topology, is_light
from controller.bus.unread import UNREAD
from controller.conf.settings import Settings
from controller.domain.errors import CloudError, NewerMessage, PoisonMessage, Unavailable
from controller.domain.messages import Message, host_of
from controller.domain.wire import decode, encode
from controller.health import thread_problem
from controller.outages import BUS, OUTAGES

log = structlog.get_logger(__name__)

# Carries out one message; what it returns goes back to a caller that waits for an answer.
Handler = Callable[[Message], Message | None]

# The header of attempts is cut to this: any program may have written it.
_MOST_ATTEMPTS = 1_000_000
_ATTEMPTS, ERROR_HEADER, FROM_HEADER = "x-pileus-attempts", "x-pileus-error", "x-pileus-queue"

# Interval at which an agent removes the queue that services of release 0.1 declare for it.
_LEAVE_EVERY_S = 600.0


class BusLostError(Exception):
    """The broker went while a handler waited; unlike what a handler itself may raise."""


_LOST: tuple[type[BaseException], ...] = (*BROKER_ERRORS, BusLostError)


class QueueConsumer:
    """Consumes some queues of a cloud until it is stopped; comes back by itself when the broker does.

    A message is acknowledged when its handler has returned. While what the handler needs is not available
    (``Unavailable``), the message is held and tried again; after any other error it goes to the end of its queue,
    and to the dead letters after ``max_attempts``. A message that cannot be read goes there at once; of those that only
    a newer release can read a few do, and all are counted (``UNREAD``).
    """

    def __init__(self, settings: Settings, queues: Sequence[str], handler: Handler, name: str) -> None:
        self._settings = settings
        self._topology = Topology(settings)
        self._names = queues
        self._handler = handler
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"consumer-{name}", daemon=True)
        self._connection: Connection | None = None
        self._held: list[Any] = []  # delivered and not handled yet; ``prefetch`` at most
        self._publisher = Publisher(settings)
        self._prefetch = settings.bus.prefetch
        self._priority = random.randrange(1, 1 << 15)  # noqa: S311 - no secret
        # Since when this consumer has had its broker without a break, by the monotonic clock.
        self.listening_since: float | None = None
        self._lost = "not reached yet"
        self._waiting_for = ""

    def problem(self) -> str:
        """Why nothing is consumed, or a message waits; empty if all is well."""
        if ended := thread_problem(self._thread, self._stop.is_set()):
            return ended
        if self.listening_since is None:
            return f"the bus is away: {self._lost}"
        return self._waiting_for and f"waiting: {self._waiting_for}"

    def declare(self) -> bool:
        """Have the queues keep what is sent to them from now on; False where the broker cannot be asked: they are
        declared when the consumer starts, too."""
        try:
            with connect(self._settings, heartbeat=False) as connection:
                connection.ensure_connection(max_retries=1, timeout=self._settings.bus.publish_timeout_s)
                self._declare(connection.channel())
        except BROKER_ERRORS as error:
            log.warning("queues not declared yet", queues=len(self._names), reason=str(error))
            return False
        return True

    def start(self) -> None:
        """Start in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Ask to end; ``join`` waits for it."""
        self._stop.set()
        memory.wake(self._queue(n).name for n in self._names)

    def join(self, timeout_s: float) -> None:
        """Wait until the message that is being handled is done."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with connect(self._settings) as connection:
                    self._connection = connection
                    self._consume(connection)
            except _LOST as error:
                began, self.listening_since = self.listening_since is not None, None
                self._lost = str(error) or type(error).__name__
                if not self._stop.is_set():
                    if OUTAGES.is_news(BUS):
                        log.warning("bus lost, trying again", queues=self._names, reason=str(error))
                    self._stop.wait(self._settings.bus.retry_after_s)
                if not began and not self._stop.is_set():
                    if isinstance(error, PreconditionFailed):
                        self._renew()
                    elif repair.may_be_broken(error):
                        self._repair()
            except Exception as error:
                # A bug, ours or the client library's: what was not acknowledged is delivered again.
                self.listening_since = None
                self._lost = f"{type(error).__name__}: {error}"
                log.exception("consumer failed, starting again", queues=self._names)
                self._stop.wait(self._settings.bus.retry_after_s)
        self._publisher.close()

    def _repair(self) -> None:
        """The broker answered, and did not let us consume."""
        try:
            repair.repair_queues(self._settings, [self._queue(n) for n in self._names])
        except BROKER_ERRORS as error:
            log.warning("queues not looked after", queues=self._names, reason=str(error))

    def _renew(self) -> None:
        """The queues were declared with other settings. Light ones that are consumed no longer can be declared anew;
        what is in them is said again."""
        try:
            for name in filter(is_light, self._names):
                if remove_unused(self._settings, name):
                    log.warning("a queue of other settings was removed", queue=name)
        except BROKER_ERRORS as error:
            log.warning("queues not renewed", queues=self._names, reason=str(error))

    def _consume(self, connection: Connection) -> None:
        self._held = []  # what an earlier connection delivered is delivered again
        channel = connection.channel()
        self._declare(channel)
        consumer = Consumer(
            channel,
            [self._consumed(n) for n in self._names],
            auto_declare=False,
            on_message=self._hold,
            prefetch_count=self._prefetch,
            accept=["json"],
        )
        with consumer:
            self._leave_old_queues(connection)
            self.listening_since = left_at = time.monotonic()
            OUTAGES.over(BUS)
            while not self._stop.is_set():
                self._receive(connection)
                if time.monotonic() - left_at > _LEAVE_EVERY_S:
                    self._leave_old_queues(connection)
                    left_at = time.monotonic()

    def _declare(self, channel: Any) -> None:
        """Declare the queues. The broker is not waited for at each of them but the last: a process of many simulated
        hosts has thousands."""
        *others, last = [self._queue(n)(channel) for n in self._names]
        last.exchange.declare()
        for queue in others:
            queue.queue_declare(nowait=True)
            queue.queue_bind(nowait=True)
        last.declare()

    def _leave_old_queues(self, connection: Connection) -> None:
        """Remove what release 0.1 declared for the same messages: nothing reads it any more. A doorbell in it is sent
        again. Services of 0.1 declare it anew with each command, and what is sent after them would fill it."""
        hosts = [n for n in self._names if host_of(n)]
        if hosts and not self._settings.embedded_bus:
            with connection.channel() as channel:
                for name in hosts:
                    channel.queue_delete(self._topology.durable(name).name, nowait=True)

    def _hold(self, raw: Any) -> None:
        self._held.append(raw)

    def _receive(self, connection: Connection) -> None:
        if not self._held:
            drain(connection, self._settings)
        while self._held and not self._stop.is_set():
            self._take(self._held.pop(0))

    def _queue(self, name: str) -> Any:
        return self._topology.queue(name)

    def _consumed(self, name: str) -> Any:
        """The queue, as this consumer wants it: of several, one gets what it can hold, and the next what is beyond.

        Shared out evenly, each would find fewer messages together and need more transactions for the same work
        (https://www.rabbitmq.com/docs/consumer-priority).
        """
        queue = self._queue(name)
        queue.consumer_arguments = {"x-priority": self._priority}
        return queue

    def _take(self, raw: Any) -> None:
        try:
            answer = self._carry_out(decode(raw.body))
        except PoisonMessage as error:
            self._refuse(raw, error)
        except Unavailable:
            return  # stopping: not acknowledged, so it is delivered again
        except BusLostError:
            raise
        except Exception as error:
            log.exception("handler failed", queue=raw.delivery_info.get("routing_key"))
            self._put_back(raw, error)
        else:
            if answer is not None:
                self._answer(raw, answer)
        raw.ack()

    def _carry_out(self, message: Message) -> Message | None:
        try:
            return self._carried_out(message)
        finally:
            self._waiting_for = ""

    def _carried_out(self, message: Message) -> Message | None:
        while True:
            try:
                return self._handler(message)
            except Unavailable as error:
                self._waiting_for = str(error)
                if self._stop.wait(1.0):
                    raise
                OUTAGES.warn(log, "waiting", error, kind=message.KIND)
                self._keep_alive()

    def _keep_alive(self) -> None:
        """Take the broker's heartbeats as well, not only send ours: a client that has heard none closes the connection,
        and a broker that delivers the same message too often sets it aside."""
        if self._connection is not None and not self._settings.embedded_bus:
            try:
                while drain(self._connection, self._settings, 0):
                    continue
            except BROKER_ERRORS as error:
                raise BusLostError(str(error)) from error

    def _put_back(self, raw: Any, error: Exception) -> None:
        attempts = _attempts(raw) + 1
        if attempts >= self._settings.bus.max_attempts or not _may_pass(error):
            self._set_aside(raw, f"{type(error).__name__}: {error}")
            return
        self._stop.wait(min(0.05 * 2**attempts, 2.0))
        key = raw.delivery_info["routing_key"]
        self._publisher.publish([Envelope(raw.body, self._topology.exchange, key, headers={_ATTEMPTS: attempts})])

    def _refuse(self, raw: Any, error: PoisonMessage) -> None:
        if not isinstance(error, NewerMessage) or UNREAD.note(error.fields["kind"]):
            self._set_aside(raw, str(error))

    def _set_aside(self, raw: Any, reason: str) -> None:
        queue = raw.delivery_info.get("routing_key", "")
        log.error("message set aside as a dead letter", queue=queue, reason=reason)
        dead = self._topology.dead_letters()
        headers = {ERROR_HEADER: reason[:2000], FROM_HEADER: queue, _ATTEMPTS: _attempts(raw) + 1}
        self._publisher.publish([Envelope(raw.body, dead.exchange, DEAD, dead, headers=headers)])

    def _answer(self, raw: Any, answer: Message) -> None:
        reply_to = raw.properties.get("reply_to")
        if reply_to:
            properties = {"correlation_id": raw.properties.get("correlation_id")}
            self._publisher.publish(
                [Envelope(encode(answer), self._topology.exchange, reply_to, properties=properties)]
            )


def _attempts(raw: Any) -> int:
    """How often a message was tried before; any program may have written the header."""
    found = (raw.headers or {}).get(_ATTEMPTS)
    return min(max(found, 0), _MOST_ATTEMPTS) if isinstance(found, int) else 0


def _may_pass(error: Exception) -> bool:
    """Whether trying again makes sense: not after an error that is the message's own fault."""
    return not isinstance(error, CloudError) or error.retriable
