"""Removes queues: those that only get in the way of others, and those of removed hosts."""

import amqp.exceptions

from controller.bus.connection import BROKER_ERRORS, connect
from controller.bus.topology import Topology
from controller.conf.settings import Settings
from controller.domain.errors import BusUnavailable
from controller.domain.messages import host_queue


def remove_unused(settings: Settings, name: str) -> bool:
    """Remove the queue of messages for ``name`` with all that is in it, unless it is consumed; whether it is gone.

    Raises:
        one of BROKER_ERRORS
    """
    queue = Topology(settings).queue(name)
    with connect(settings, heartbeat=False) as connection:
        connection.ensure_connection(max_retries=1, timeout=settings.bus.publish_timeout_s)
        try:
            connection.channel().queue_delete(queue.name, if_unused=True)
        except (amqp.exceptions.PreconditionFailed, amqp.exceptions.NotFound):
            return False
    return True


def remove_host_queues(settings: Settings, host: str) -> None:
    """Remove the queue of the host's agent, and the one that an agent of release 0.1 has; absent is fine.

    Raises:
        BusUnavailable: try again.
    """
    topology, name = Topology(settings), host_queue(host)
    try:
        with connect(settings, heartbeat=False) as connection:
            connection.ensure_connection(max_retries=1, timeout=settings.bus.publish_timeout_s)
            channel = connection.channel()
            for queue in (topology.queue(name), topology.durable(name)):
                channel.queue_delete(queue.name)
    except BROKER_ERRORS as error:
        raise BusUnavailable(what="The message bus", reason=str(error) or type(error).__name__) from error
