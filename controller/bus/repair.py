"""Repairs queues that the broker has, and cannot serve.

RabbitMQ 3.10 writes the list of its quorum queues to disk within half a second. One that was declared less than that
before the broker was killed is still known afterwards, but nothing is behind it: what is published to it is refused,
and a consumer receives nothing for a minute, then INTERNAL_ERROR, without end. It has to be deleted and declared
again. What was in it is lost; the rows are the truth, and a sweep notifies again.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import structlog
from amqp.exceptions import InternalError
from kombu import Connection, Queue
from kombu.exceptions import OperationalError

from controller.bus.connection import connect
from controller.conf.settings import Settings

log = structlog.get_logger(__name__)

# A queue that works takes a consumer within milliseconds. Deleting one that does not takes the broker five seconds.
_PROBE_S = 5.0
_RENEW_S = 30.0
_UNSERVED = (InternalError, TimeoutError)


def may_be_broken(error: BaseException) -> bool:
    """Whether a consumer that could not start may have met such a queue: it was connected, and had no answer.

    A consumer that waits for one sends no heartbeats; the broker may reset the connection first.
    """
    return not isinstance(error, OperationalError)  # kombu's for: no connection


def repair_queues(settings: Settings, queues: Sequence[Queue]) -> list[str]:
    """Delete and declare again those of these queues that the broker cannot serve; answers with their names.

    Raises:
        one of BROKER_ERRORS: the broker cannot be asked; nothing is known of the queues.
    """
    repaired = []
    waiting = list(queues)
    while waiting:
        with _connection(settings, _PROBE_S) as connection:
            broken = _first_broken(connection, waiting)
        if broken is not None:
            with _connection(settings, _RENEW_S) as connection:
                bound = broken(connection.channel())
                bound.delete()
                bound.declare()
            log.error("a queue that the broker could not serve was declared again", queue=broken.name)
            repaired.append(str(broken.name))
    return repaired


def _first_broken(connection: Connection, waiting: list[Queue]) -> Queue | None:
    """The first queue that takes no consumer; it and those before it have been taken out of ``waiting``."""
    channel = connection.channel()
    # What is delivered meanwhile goes back when the connection ends.
    channel.basic_qos(0, 1, False)
    while waiting:
        bound = waiting[0](channel)
        bound.declare()  # answered by the broker even where no queue is behind the name
        queue = waiting.pop(0)
        try:
            bound.consume(f"probe-{queue.name}", callback=lambda _: None, no_ack=False)
        except _UNSERVED:
            return queue
        bound.cancel(f"probe-{queue.name}")
    return None


@contextmanager
def _connection(settings: Settings, answer_s: float) -> Iterator[Connection]:
    """A connection on which every answer is waited for so long; it is dropped without a word."""
    connection = connect(settings, heartbeat=False)
    connection.transport_options = {**connection.transport_options, "read_timeout": answer_s}
    try:
        connection.ensure_connection(max_retries=1, timeout=settings.bus.publish_timeout_s)
        yield connection
    finally:
        connection.collect()
