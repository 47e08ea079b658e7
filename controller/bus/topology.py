"""Queues and how they are declared: the same names and arguments wherever one is used."""

from kombu import Exchange, Queue

from controller.conf.settings import Settings

DEAD = "dead"
# Deliveries that may end with the consumer's death until the broker itself sets a message aside.
CRASH_LIMIT = 20
REPLY_EXPIRES_S = 60


class Topology:
    """Names and arguments of one cloud's queues; two clouds may share a broker."""

    def __init__(self, settings: Settings) -> None:
        self._prefix = f"pileus.{settings.general.cloud_id}"
        self._max_length = settings.bus.max_queue_length
        self._dead_exchange = Exchange(f"{self._prefix}.{DEAD}", type="direct", durable=True)
        self.exchange = Exchange(self._prefix, type="direct", durable=True)

    def queue(self, name: str) -> Queue:
        """A durable quorum queue; what kills its consumers again and again goes to the dead letters."""
        return self._queue(
            name,
            self.exchange,
            {
                "x-queue-type": "quorum",
                "x-delivery-limit": CRASH_LIMIT,
                "x-max-length": self._max_length,
                "x-dead-letter-exchange": self._dead_exchange.name,
                "x-dead-letter-routing-key": DEAD,
            },
        )

    def dead_letters(self) -> Queue:
        """Where messages go that no handler can ever carry out."""
        return self._queue(DEAD, self._dead_exchange, {"x-queue-type": "quorum", "x-max-length": self._max_length})

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

    def _queue(self, name: str, exchange: Exchange, arguments: dict[str, object]) -> Queue:
        return Queue(
            f"{self._prefix}.{name}", exchange=exchange, routing_key=name, durable=True, queue_arguments=arguments
        )
