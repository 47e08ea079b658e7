"""The scheduler as a service: consumers of one queue; several processes of it may run side by side."""

from collections.abc import Iterable, Sequence
from typing import ClassVar

import structlog

from controller.bus.batch_consumer import BatchConsumer
from controller.conf.settings import Settings
from controller.domain.errors import PoisonMessage
from controller.domain.messages import Message, ScheduleReservation
from controller.needs import Needs
from controller.operations.cloud import Cloud
from controller.operations.instances.locking import count_requested, in_portions
from scheduler.host_cache import HostCache
from scheduler.placement.policy import policy_for
from scheduler.schedule import schedule

log = structlog.get_logger(__name__)

# A transaction is kept short: agents' reports, launches and deletes wait for the rows that it has locked.
MOST_INSTANCES = 1000

_QUEUE = "schedule"
_STOP_S = 10


class SchedulerService:
    """Places what was requested."""

    name: ClassVar[str] = "scheduler"
    needs_database: ClassVar[bool] = True

    @staticmethod
    def needs(settings: Settings) -> Needs:
        """A thread and a connection to the bus for each consumer."""
        consumers = settings.scheduler.consumers
        return Needs(database_threads=consumers, consumers=consumers)

    def __init__(self, cloud: Cloud) -> None:
        policy_for(cloud.settings.scheduler)  # raises ConfigurationError now, not at the first request
        self._consumers = [
            BatchConsumer(cloud.settings, [_QUEUE], Placer(cloud), name=f"{_QUEUE}-{n}")
            for n in range(cloud.settings.scheduler.consumers)
        ]

    def start(self) -> None:
        """Begin; returns at once."""
        for consumer in self._consumers:
            consumer.start()

    def stop(self) -> None:
        """End when the current messages are done."""
        for consumer in self._consumers:
            consumer.stop()
        for consumer in self._consumers:
            consumer.join(_STOP_S)

    def problem(self) -> str:
        """Why this service places nothing; empty if it works."""
        return next(filter(None, (c.problem() for c in self._consumers)), "")

    def destroy(self) -> None:
        """A scheduler leaves nothing on its machine."""


class Placer:
    """What one consumer does with a batch of doorbells; it has a host cache of its own."""

    def __init__(self, cloud: Cloud, cache: HostCache | None = None) -> None:
        self._cloud = cloud
        self._cache = cache or HostCache()

    def __call__(self, messages: Sequence[Message]) -> None:
        """Place the reservations that these messages name, each of them in one transaction.

        Raises:
            PoisonMessage: a message is not for a scheduler.
        """
        wanted = list(dict.fromkeys(r for m in messages for r in _reservations(m)))
        for reservations in self._portions(wanted):
            try:
                placed = self._cloud.write(lambda tx, some=reservations: schedule(tx, some, self._cache))  # type: ignore[misc]
            except Exception:
                self._cache.forget()
                raise
            if placed:
                log.info("placed", reservations=len(reservations), instances=placed)

    def _portions(self, wanted: Sequence[str]) -> Iterable[Sequence[str]]:
        """The reservations, as many at a time as have ``MOST_INSTANCES`` to be placed together."""
        if len(wanted) < 2:
            return [wanted]
        counted = self._cloud.ask(lambda tx: count_requested(tx, wanted))
        return in_portions((r for r in wanted if r in counted), counted.__getitem__, MOST_INSTANCES)


def _reservations(message: Message) -> tuple[str, ...]:
    if not isinstance(message, ScheduleReservation):
        raise PoisonMessage(reason=f"{message.KIND} is not for the scheduler")
    return (message.reservation_id, *message.more)
