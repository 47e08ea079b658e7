"""The scheduler as a service: some consumers of one queue; several processes of it may run side by side."""

from collections.abc import Iterable, Sequence
from typing import ClassVar

import structlog

from controller.bus.consumer import BatchConsumer
from controller.domain.errors import PoisonMessage
from controller.domain.messages import Message, ScheduleReservation
from controller.operations.cloud import Cloud
from controller.operations.instances.locking import count_requested, in_portions
from scheduler.host_cache import HostCache
from scheduler.policy import policy_for
from scheduler.schedule import schedule

log = structlog.get_logger(__name__)

# Others wait for what a transaction has locked - agents' reports, launches, deletes -, so that it is to be short.
MOST_INSTANCES = 1000

_QUEUE = "schedule"
_STOP_S = 10


class SchedulerService:
    """Places what was requested."""

    name: ClassVar[str] = "scheduler"
    needs_database: ClassVar[bool] = True

    def __init__(self, cloud: Cloud) -> None:
        policy_for(cloud.settings.scheduler)  # a wrong configuration is told now
        self._consumers = [
            BatchConsumer(cloud.settings, [_QUEUE], Placer(cloud), name=f"{_QUEUE}-{n}")
            for n in range(cloud.settings.scheduler.consumers)
        ]

    def start(self) -> None:
        """Begin; returns at once."""
        for consumer in self._consumers:
            consumer.start()

    def stop(self) -> None:
        """End when the messages in hand are done."""
        for consumer in self._consumers:
            consumer.stop()
        for consumer in self._consumers:
            consumer.join(_STOP_S)

    def problem(self) -> str:
        """Why nothing is placed."""
        return next(filter(None, (c.problem() for c in self._consumers)), "")

    def destroy(self) -> None:
        """A scheduler leaves nothing on its machine."""


class Placer:
    """What one consumer does with the doorbells that have come together; it has its own view of the site."""

    def __init__(self, cloud: Cloud, cache: HostCache | None = None) -> None:
        self._cloud = cloud
        self._cache = cache or HostCache()

    def __call__(self, messages: Sequence[Message]) -> None:
        """Place, in as few transactions as keep each of them short; a reservation is placed in one.

        Raises:
            PoisonMessage: one is not for a scheduler.
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
        """The reservations, so many at a time as have ``MOST_INSTANCES`` to be placed."""
        if len(wanted) < 2:
            return [wanted]
        counted = self._cloud.ask(lambda tx: count_requested(tx, wanted))
        return in_portions((r for r in wanted if r in counted), counted.__getitem__, MOST_INSTANCES)


def _reservations(message: Message) -> tuple[str, ...]:
    if not isinstance(message, ScheduleReservation):
        raise PoisonMessage(reason=f"{message.KIND} is not for the scheduler")
    return (message.reservation_id, *message.more)
