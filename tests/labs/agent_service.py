"""What the compute service sends, heard as a controller hears it."""

import threading

from controller.bus.consumer import QueueConsumer
from controller.conf.settings import Settings
from controller.domain.messages import (
    GuestsChanged,
    HostReported,
    Message,
)
from controller.domain.states import Event


class Events:
    """What a controller would hear."""

    def __init__(self, settings: Settings) -> None:
        self._lock = threading.Lock()
        self._heard: list[Message] = []
        self._consumer = QueueConsumer(settings, ["events", "heartbeats"], self._take, "events")
        self._consumer.start()

    def _take(self, message: Message) -> None:
        with self._lock:
            self._heard.append(message)

    def reports(self) -> set[tuple[str, str, int, Event]]:
        with self._lock:
            return {
                (m.host, r.instance_id, r.generation, r.event)
                for m in self._heard
                if isinstance(m, GuestsChanged)
                for r in m.reports
            }

    def heartbeats(self) -> list[HostReported]:
        with self._lock:
            return [m for m in self._heard if isinstance(m, HostReported)]

    def close(self) -> None:
        self._consumer.stop()
        self._consumer.join(5)
