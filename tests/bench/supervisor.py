"""Keeps a bench's broker running, as a service manager does, also after a kill; kills it itself where that is asked."""

import random
import threading
import time
from types import TracebackType
from typing import Self

from tests.labs.servers.guarded import ServerError
from tests.labs.servers.server import Server

_LOOK_EVERY_S = 0.2
_STOP_S = 60


class Supervisor:
    """A context in which ``server`` is started again whenever it is gone, and killed ``kills`` times at random moments
    of the first ``within_s`` seconds."""

    def __init__(self, server: Server, *, kills: int = 0, within_s: float = 60) -> None:
        self._server = server
        dice = random.Random()
        self._moments = sorted(dice.uniform(0, within_s) for _ in range(kills))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self.restarts = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(_STOP_S)

    def _run(self) -> None:
        begin = time.monotonic()
        while not self._stop.wait(_LOOK_EVERY_S):
            if self._moments and time.monotonic() - begin >= self._moments[0]:
                del self._moments[0]
                self._server.kill()
            if not self._server.running:
                self._restart()

    def _restart(self) -> None:
        try:
            self._server.start()
            self.restarts += 1
        except ServerError as error:
            print(f"the broker did not start, tried again: {error}", flush=True)
