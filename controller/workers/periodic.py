"""Work that is done again and again, in a thread of its own, whatever goes wrong in between."""

import threading
from collections.abc import Callable

import structlog

from controller.domain.errors import Unavailable
from controller.outages import OUTAGES

log = structlog.get_logger(__name__)


class Periodic:
    """Calls ``work`` every ``every_s`` seconds until it is stopped; an error is logged and the next round comes."""

    def __init__(self, name: str, every_s: float, work: Callable[[], object]) -> None:
        self._name = name
        self._every_s = every_s
        self._work = work
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin with a first round at once."""
        self._thread.start()

    def stop(self, timeout_s: float = 10) -> None:
        """End after the round in hand, and wait for it."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            try:
                self._work()
            except Unavailable as error:
                OUTAGES.tell(log, "round skipped", error, work=self._name)
            except Exception:
                log.exception("round failed", work=self._name)
            if self._stop.wait(self._every_s):
                return
