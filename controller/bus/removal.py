"""Removes queues that only get in the way of others."""

import amqp.exceptions

from controller.bus.connection import connect
from controller.bus.topology import Topology
from controller.conf.settings import Settings


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
