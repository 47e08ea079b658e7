"""Connections to the broker, every wait bounded."""

import amqp.exceptions
import kombu.exceptions
from kombu import Connection

from controller.bus import memory
from controller.conf.settings import Settings

# What a broker that is down, slow or gone looks like from here.
BROKER_ERRORS: tuple[type[BaseException], ...] = (
    kombu.exceptions.OperationalError,
    amqp.exceptions.AMQPError,
    amqp.exceptions.MessageNacked,  # which is no AMQPError
    ConnectionError,
    OSError,
)


def connect(settings: Settings, *, heartbeat: bool = True) -> Connection:
    """A connection that is opened at its first use.

    ``heartbeat`` is for connections that are drained: one that only publishes now and then could not answer.
    """
    if settings.embedded_bus:
        return Connection(transport=memory.Transport)
    return Connection(
        settings.bus.url,
        heartbeat=settings.bus.heartbeat_s if heartbeat else 0,
        connect_timeout=settings.bus.publish_timeout_s,
        transport_options={
            "read_timeout": settings.bus.heartbeat_s * 2,
            "write_timeout": settings.bus.publish_timeout_s,
        },
    )


def drain(connection: Connection, settings: Settings, timeout_s: float = 1.0) -> bool:
    """Handle one thing that has arrived, or wait ``timeout_s`` for something to arrive; False where nothing had."""
    try:
        connection.drain_events(timeout=timeout_s)
        arrived = True
    except TimeoutError:
        arrived = False
    if not settings.embedded_bus:
        # Each time: where something arrives all the while, be it the broker's heartbeats, no wait ever runs out.
        connection.heartbeat_check()
    return arrived
