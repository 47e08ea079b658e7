"""A consumer that hands messages over as many at a time as have come together."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from kombu import Connection

from controller.bus.connection import drain
from controller.bus.consumer import BusLostError, QueueConsumer
from controller.conf.settings import Settings
from controller.domain.errors import PoisonMessage, Unavailable
from controller.domain.messages import Message
from controller.domain.wire import decode
from controller.outages import OUTAGES

log = structlog.get_logger(__name__)

# Carries out some messages at once; all of them, or none.
BatchHandler = Callable[[Sequence[Message]], None]


class BatchConsumer(QueueConsumer):
    """Hands over as many messages at a time as have come together within ``[bus] linger_ms``, ``[bus] batch`` at
    most, to be handled in one transaction. When a batch fails, each message is handled alone, so that one bad
    message harms no other. ``batch`` and ``linger_s`` stand in for the settings. What ``check`` refuses, by a
    PoisonMessage, is in no batch."""

    def __init__(
        self,
        settings: Settings,
        queues: Sequence[str],
        handler: BatchHandler,
        name: str,
        *,
        batch: int = 0,
        linger_s: float = 0,
        check: Callable[[Message], None] = lambda _: None,
    ) -> None:
        super().__init__(settings, queues, self._handle_one, name)
        self._handle_batch = handler
        self._check = check
        self._prefetch = batch or settings.bus.batch
        self._linger_s = linger_s or settings.bus.linger_ms / 1000
        # When more had come than one batch holds, by the monotonic clock: how much more is not known.
        self.behind_at = -math.inf

    def _handle_one(self, message: Message) -> None:
        self._check(message)
        self._handle_batch([message])

    def _receive(self, connection: Connection) -> None:
        # Something may be held already: a broker delivers as soon as the first of several queues is consumed.
        if not self._held:
            drain(connection, self._settings)
        end = time.monotonic() + self._linger_s
        while self._held and len(self._held) < self._prefetch:
            # What is there already is taken in any case, however late it has become.
            left_s = max(0.0, end - time.monotonic())
            if not drain(connection, self._settings, left_s) and not left_s:
                break
        if len(self._held) >= self._prefetch:
            self.behind_at = time.monotonic()
        held, self._held = self._held, []
        if len(held) == 1:
            self._take(held[0])
        elif held:
            self._flush(held)

    def _flush(self, held: Sequence[Any]) -> None:
        readable = [(raw, message) for raw in held if (message := self._read(raw)) is not None]
        if not readable:
            return
        try:
            self._handle_batch([message for _, message in readable])
        except BusLostError:
            raise
        except Exception as error:
            if isinstance(error, Unavailable):
                OUTAGES.warn(log, "batch waits", error, messages=len(readable))
            else:
                log.warning("batch failed, each message alone", messages=len(readable), reason=str(error))
            for raw, _ in readable:
                self._take(raw)
        else:
            readable[-1][0].ack(multiple=True)

    def _read(self, raw: Any) -> Message | None:
        """The message; None: it cannot be read and has been set aside, which harms no other of its batch."""
        try:
            message = decode(raw.body)
            self._check(message)
        except PoisonMessage as error:
            self._refuse(raw, error)
            raw.ack()
            return None
        return message
