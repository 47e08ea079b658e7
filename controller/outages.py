"""What is away for a while - the database, the broker - is told once a minute by a process, and once when it is back.

Each thread that needs it would say so each time it tries.
"""

import math
import threading
import time
from collections.abc import Callable
from typing import Any

import structlog

from controller.domain.errors import Unavailable

EVERY_S = 60.0
DATABASE, BUS = "The database", "The message bus"


class Outages:
    """What is away, by name (the ``what`` of ``Unavailable``), since when, and when it was last told."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._since: dict[str, float] = {}
        self._told_at: dict[str, float] = {}

    def warn(self, log: Any, event: str, error: Unavailable, **fields: object) -> None:
        """Log that something could not be done for it, unless the last such line is younger than a minute."""
        if self.is_news(str(error.fields.get("what", type(error).__name__))):
            log.warning(event, reason=str(error), **fields)

    def is_news(self, what: str) -> bool:
        """Note that it is away; whether that is to be told now."""
        now = self._monotonic()
        with self._lock:
            self._since.setdefault(what, now)
            if now - self._told_at.get(what, -math.inf) < EVERY_S:
                return False
            self._told_at[what] = now
            return True

    def over(self, what: str) -> None:
        """It answers: tell it, if it was told that it did not. Costs nothing where it never was away."""
        if what not in self._since:
            return
        with self._lock:
            since = self._since.pop(what, None)
            told = since is not None and self._told_at.get(what, -math.inf) >= since
        if since is not None and told:
            log.warning("it answers again", what=what, away_s=round(self._monotonic() - since, 1))


log = structlog.get_logger(__name__)
# This process's.
OUTAGES = Outages()
