"""Remembers for a moment which guest is at an address: a booting one asks twenty times in a second."""

import threading
import time
from collections.abc import Callable

from controller.operations.instances.metadata import GuestMetadata

_SIZE = 4096


class CallerCache:
    """Answers of ``find``, for ``ttl_s`` seconds; that there is no guest is not remembered."""

    def __init__(
        self,
        find: Callable[[str, str], GuestMetadata | None],
        ttl_s: float = 2.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._find = find
        self._ttl_s = ttl_s
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], tuple[float, GuestMetadata]] = {}

    def find(self, remote: str, local: str) -> GuestMetadata | None:
        """The caller, as it was ``ttl_s`` ago at most."""
        now = self._monotonic()
        with self._lock:
            at, guest = self._known.get((remote, local), (0.0, None))
        if guest is not None and now - at < self._ttl_s:
            return guest
        guest = self._find(remote, local)
        with self._lock:
            self._known.pop((remote, local), None)
            if guest is not None:
                while len(self._known) >= _SIZE:
                    del self._known[next(iter(self._known))]
                self._known[remote, local] = (now, guest)
        return guest
