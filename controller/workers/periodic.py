"""Work that is done again and again, in a thread of its own, whatever goes wrong in between."""

import threading
from collections.abc import Callable

import structlog

from controller.domain.errors import Unavailable
from controller.health import thread_problem
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
        self._failed = ""

    def problem(self) -> str:
        """Why the last round was not done; empty when it was."""
        return self._failed or thread_problem(self._thread, self._stop.is_set())

    def start(self) -> None:
        """Begin with a first round."""
        self._thread.start()

    def stop(self, timeout_s: float = 10) -> None:
        """End after the current round, and wait for it."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            try:
                self._work()
                self._failed = ""
            except Unavailable as error:
                self._failed = str(error)
                OUTAGES.warn(log, "round skipped", error, work=self._name)
            except Exception as error:
                self._failed = f"{self._name} failed: {type(error).__name__}: {error}"
                log.exception("round failed", work=self._name)
            if self._stop.wait(self._every_s):
                return
