"""Sends doorbells from a thread of its own, so that no request and no transaction waits for the broker."""

import threading
from collections.abc import Callable, Sequence

import structlog

from controller.domain.errors import BusUnavailable
from controller.domain.messages import Message
from controller.outages import OUTAGES

log = structlog.get_logger(__name__)

# Doorbells that wait at most; beyond them they are dropped: the sweep notifies again.
MAX_WAITING = 20000
# Messages that are sent before their confirmations are awaited.
BATCH = 500
_CLOSE_S = 5.0


class Notifier:
    """Takes doorbells and publishes them in order, as many at a time as have come together meanwhile."""

    def __init__(self, publish: Callable[[Sequence[Message]], None], pause_s: float) -> None:
        self._publish = publish
        self._pause_s = pause_s
        self._condition = threading.Condition()
        self._waiting: list[Message] = []
        self._busy = False
        self._closed = False
        self._thread: threading.Thread | None = None

    def notify(self, messages: Sequence[Message]) -> None:
        """Take doorbells; returns at once and never raises."""
        with self._condition:
            if self._closed or len(self._waiting) + len(messages) > MAX_WAITING:
                log.warning("doorbells dropped, the sweep notifies again", count=len(messages))
                return
            self._waiting += messages
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="bus-notifier", daemon=True)
                self._thread.start()
            self._condition.notify_all()

    def close(self) -> None:
        """Publish what waits, in a bounded time, and end."""
        with self._condition:
            self._condition.wait_for(lambda: not self._waiting and not self._busy, _CLOSE_S)
            self._closed = True
            self._condition.notify_all()
        if self._thread is not None:
            self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        while batch := self._next():
            try:
                self._publish(batch)
            except BusUnavailable as error:
                OUTAGES.warn(log, "doorbells not sent, the sweep notifies again", error, count=len(batch))
                self._drop_for_a_while()
            except Exception:  # the thread goes on, whatever bug there is
                log.exception("doorbells not sent, the sweep notifies again", count=len(batch))
                self._drop_for_a_while()
            finally:
                with self._condition:
                    self._busy = False
                    self._condition.notify_all()

    def _drop_for_a_while(self) -> None:
        with self._condition:
            self._waiting.clear()
            self._condition.wait_for(lambda: self._closed, self._pause_s)
            self._waiting.clear()

    def _next(self) -> Sequence[Message]:
        """The next batch, the same doorbell only once; empty when closed."""
        with self._condition:
            self._condition.wait_for(lambda: self._waiting or self._closed)
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            self._busy = bool(batch)
            return list(dict.fromkeys(batch))
