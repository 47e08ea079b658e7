"""Queues and how they are declared: the same names and arguments wherever one is used.

Three kinds, by what a message in them is worth:

- what services work off (``schedule``, ``network``, ``events``) is in durable quorum queues, declared by
  senders and consumers;
- heartbeats are in a queue that drops the oldest, declared by the controllers that consume it;
- each agent has a queue of its own, declared by it alone, for a quorum queue a host was the broker's biggest cost: with
  5,000 of them 750 MiB of memory, 14 % of a core while nothing is sent, and 0.9 ms for a message, against 170 MiB,
  nothing and 0.1 ms. It lives on the broker's node that the agent is connected to; should that one go, the agent
  declares the queue elsewhere. A doorbell that no queue takes is lost, and the sweep notifies again.

The last two are not durable: a durable queue of a node that is down cannot be declared on another.
"""

from collections.abc import Mapping

from kombu import Exchange, Queue

from controller.conf.settings import Settings
from controller.domain.messages import HEARTBEATS, host_of

DEAD = "dead"
# Deliveries that may end with the consumer's death until the broker itself sets a message aside.
CRASH_LIMIT = 20
REPLY_EXPIRES_S = 60
# A restart of an agent takes less; a host that has been away for longer is notified again anyway.
_AGENT_EXPIRES_S = 300
_AGENT_MAX_LENGTH = 10_000


class Topology:
    """Names and arguments of one cloud's queues; two clouds may share a broker."""

    def __init__(self, settings: Settings) -> None:
        self._prefix = f"pileus.{settings.general.cloud_id}"
        self._max_length = settings.bus.max_queue_length
        self._max_heartbeats = settings.bus.max_heartbeats
        self._dead_exchange = Exchange(f"{self._prefix}.{DEAD}", type="direct", durable=True)
        self.exchange = Exchange(self._prefix, type="direct", durable=True)

    def queue(self, name: str) -> Queue:
        """The queue in which messages for ``name`` arrive."""
        if host := host_of(name):
            limits = {"x-max-length": _AGENT_MAX_LENGTH, "x-expires": _AGENT_EXPIRES_S * 1000}
            return self._light(f"agent.{host}", name, limits)
        if name == HEARTBEATS:
            return self._light(name, name, {"x-max-length": self._max_heartbeats})
        return self.durable(name)

    def sent_to(self, name: str) -> Queue | None:
        """The queue that a sender is to declare; None: its consumer alone does."""
        return None if is_light(name) else self.queue(name)

    def durable(self, name: str) -> Queue:
        """A durable quorum queue; what kills its consumers again and again goes to the dead letters.

        Release 0.1 has such a one for each host.
        """
        return self._quorum(
            name,
            self.exchange,
            {
                "x-delivery-limit": CRASH_LIMIT,
                "x-max-length": self._max_length,
                "x-dead-letter-exchange": self._dead_exchange.name,
                "x-dead-letter-routing-key": DEAD,
            },
        )

    def dead_letters(self) -> Queue:
        """Where messages go that no handler can ever carry out."""
        return self._quorum(DEAD, self._dead_exchange, {"x-max-length": self._max_length})

    def replies(self, name: str) -> Queue:
        """A caller's own queue for answers; it is gone a minute after its caller."""
        return Queue(
            f"{self._prefix}.reply.{name}",
            exchange=self.exchange,
            routing_key=f"reply.{name}",
            durable=False,
            auto_delete=True,
            expires=REPLY_EXPIRES_S,
            max_length=1000,
        )

    def _light(self, name: str, routing_key: str, limits: Mapping[str, int]) -> Queue:
        return Queue(
            f"{self._prefix}.{name}",
            exchange=self.exchange,
            routing_key=routing_key,
            durable=False,
            queue_arguments={"x-queue-type": "classic", **limits},
        )

    def _quorum(self, name: str, exchange: Exchange, arguments: dict[str, object]) -> Queue:
        return Queue(
            f"{self._prefix}.{name}",
            exchange=exchange,
            routing_key=name,
            durable=True,
            queue_arguments={"x-queue-type": "quorum", **arguments},
        )


def is_light(name: str) -> bool:
    """Whether what is sent there may be lost: it is not written to the broker's disk."""
    return name == HEARTBEATS or bool(host_of(name))
