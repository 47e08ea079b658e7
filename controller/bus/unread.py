"""What this process received and could not read, because a newer release sent it: counted by kind, to be shown."""

import threading
import time
from collections import Counter
from collections.abc import Callable

# Of each kind so many are kept as dead letters in an hour; the rest is only counted: many hosts would fill the table.
_KEPT = 10
_EVERY_S = 3600.0
# Kinds beyond so many are counted as one.
_KINDS = 50
_OTHERS = "others"


class Unread:
    """Counts; safe to use from many threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._kept: dict[str, tuple[float, int]] = {}  # since when, how many

    def note(self, kind: str) -> bool:
        """Count one; whether this one is to be kept."""
        with self._lock:
            if kind not in self._counts and len(self._counts) >= _KINDS:
                kind = _OTHERS
            self._counts[kind] += 1
            since, kept = self._kept.get(kind, (self._clock(), 0))
            if self._clock() - since >= _EVERY_S:
                since, kept = self._clock(), 0
            self._kept[kind] = since, kept + 1
            return kept < _KEPT

    def summary(self) -> list[str]:
        """Each kind with its count, for a person."""
        with self._lock:
            return [f"{kind} ({count})" for kind, count in sorted(self._counts.items())]


# The process's own: what reports on the process (its register, its agents' heartbeats) reports this, too.
UNREAD = Unread()
