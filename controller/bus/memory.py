"""The broker of an embedded cloud, in its process: a kombu transport for hundreds of queues and many threads.

kombu's own in-memory transport asks every queue of a consumer in turn for each message, looks through all bindings
for each delivery, polls while there is nothing, and acknowledges one message where several are meant. This one notifies
the consumers of a queue of each arrival. It forgets everything with the process: the rows are the
truth, and the sweep notifies again.
"""

import itertools
import queue
import threading
from collections import defaultdict, deque
from collections.abc import Iterable
from typing import Any

from kombu.transport import virtual

_MAX_LENGTH = 100_000


class _Store:
    """The process's queues, their consumers, and the way there from an exchange and a routing key."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.queues: dict[str, deque[Any]] = {}
        self.routes: dict[tuple[str, str], tuple[str, ...]] = {}
        self._consumers: dict[str, tuple[queue.SimpleQueue[str], ...]] = defaultdict(tuple)

    def declare(self, name: str, max_length: int) -> None:
        """Make a queue; when it is full, its oldest message makes room, as at a real broker."""
        with self._lock:
            self.queues.setdefault(name, deque(maxlen=max_length))

    def delete(self, name: str) -> None:
        with self._lock:
            self.queues.pop(name, None)
            for key, names in list(self.routes.items()):
                if name in names:
                    self.routes[key] = tuple(n for n in names if n != name)

    def bind(self, name: str, exchange: str, routing_key: str) -> None:
        with self._lock:
            names = self.routes.get((exchange, routing_key), ())
            if name not in names:
                self.routes[exchange, routing_key] = (*names, name)

    def put(self, name: str, message: Any) -> None:
        self.queues[name].append(message)
        self.wake(name)

    def wake(self, name: str) -> None:
        """Have the consumers of this queue look."""
        for arrivals in self._consumers[name]:
            arrivals.put(name)

    def subscribe(self, name: str, arrivals: "queue.SimpleQueue[str]") -> None:
        """Be notified of what arrives from now on, and of what is there already."""
        with self._lock:
            self._consumers[name] = (*self._consumers[name], arrivals)
            for _ in range(len(self.queues[name])):
                arrivals.put(name)

    def unsubscribe(self, name: str, arrivals: "queue.SimpleQueue[str]") -> None:
        with self._lock:
            self._consumers[name] = tuple(a for a in self._consumers[name] if a is not arrivals)


_STORE = _Store()
_delivery_tags = itertools.count(1)


def wake(queues: Iterable[str]) -> None:
    """Have the threads that wait for something in these queues return from their wait."""
    for name in queues:
        _STORE.wake(name)


def is_routable(exchange: str, routing_key: str) -> bool:
    """Whether any queue takes what is sent there."""
    return bool(_STORE.routes.get((exchange, routing_key)))


class QoS(virtual.QoS):  # type: ignore[misc]
    """What was delivered and not acknowledged yet."""

    def ack_until(self, delivery_tag: int) -> None:
        """Acknowledge this message and all that were delivered before it."""
        for tag in [t for t in self._delivered if t <= delivery_tag]:
            self.ack(tag)


class Channel(virtual.Channel):  # type: ignore[misc]
    """A channel to the queues of this process."""

    QoS = QoS
    body_encoding = None
    # What a closed channel has not acknowledged goes back to its queue.
    do_restore = True

    def queue_bind(
        self,
        queue: str,
        exchange: str | None = None,
        routing_key: str = "",
        arguments: object = None,  # noqa: ARG002
        **_: object,
    ) -> None:
        """Bind a queue to a direct exchange."""
        _STORE.bind(queue, exchange or "amq.direct", routing_key)

    def queue_delete(self, queue: str, if_unused: bool = False, if_empty: bool = False, **_: object) -> None:  # noqa: ARG002
        """Remove a queue with what is in it."""
        if not (if_empty and self._size(queue)):
            _STORE.delete(queue)

    def basic_consume(self, queue: str, *args: Any, **options: Any) -> None:
        """Consume a queue: ``drain_events`` of the connection delivers."""
        super().basic_consume(queue, *args, **options)
        _STORE.subscribe(queue, self.connection.arrivals)

    def basic_cancel(self, consumer_tag: str) -> None:
        """Consume a queue no longer."""
        name = self._tag_to_queue.get(consumer_tag)
        if name is not None:
            _STORE.unsubscribe(name, self.connection.arrivals)
        super().basic_cancel(consumer_tag)

    def basic_ack(self, delivery_tag: int, multiple: bool = False) -> None:
        """Acknowledge a message, or all until this one."""
        if multiple:
            self.qos.ack_until(delivery_tag)
        else:
            super().basic_ack(delivery_tag)

    def _next_delivery_tag(self) -> int:
        return next(_delivery_tags)

    def _lookup(self, exchange: str, routing_key: str, default: str | None = None) -> Iterable[str]:  # noqa: ARG002
        return _STORE.routes.get((exchange, routing_key), ())

    def _has_queue(self, queue: str, **_: object) -> bool:
        return queue in _STORE.queues

    def _new_queue(self, queue: str, arguments: dict[str, Any] | None = None, **_: object) -> None:
        _STORE.declare(queue, int((arguments or {}).get("x-max-length", _MAX_LENGTH)))

    def _get(self, queue: str, timeout: float | None = None) -> Any:  # noqa: ARG002
        return self.connection.take(queue)

    def _put(self, queue: str, message: Any, **_: object) -> None:
        _STORE.put(queue, message)

    def _size(self, queue: str) -> int:
        return len(_STORE.queues.get(queue, ()))

    def _purge(self, queue: str) -> int:
        size = self._size(queue)
        _STORE.queues[queue].clear()
        return size


class Transport(virtual.Transport):  # type: ignore[misc]
    """The transport of ``memory://``; one connection is for one thread."""

    Channel = Channel
    driver_type = driver_name = "memory"
    _STATE = virtual.BrokerState()

    def __init__(self, client: Any, **options: Any) -> None:
        super().__init__(client, **options)
        self.state = self._STATE
        self.arrivals: queue.SimpleQueue[str] = queue.SimpleQueue()

    def driver_version(self) -> str:
        """There is none."""
        return "N/A"

    def take(self, name: str) -> Any:
        """The oldest message of a queue. Raises queue.Empty."""
        try:
            return _STORE.queues[name].popleft()
        except (IndexError, KeyError):
            raise queue.Empty from None

    def drain_events(self, connection: Any, timeout: float | None = None) -> None:  # noqa: ARG002
        """Deliver one message; wait for it as long as ``timeout`` says.

        How many may be delivered and not acknowledged is the caller's choice: one is delivered for each call.

        Raises:
            TimeoutError: none came, another consumer took it, or ``wake`` was called.
        """
        try:
            name = self.arrivals.get(timeout=timeout)
            message = self.take(name)
        except queue.Empty:
            raise TimeoutError from None
        self._deliver(message, name)
