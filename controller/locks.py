"""Locks between processes: flock(2) on a file that the caller has open.

Not by ``filelock``: a lock may be shared here (many imports, one that prunes), it is also taken on a file that has
content (the pid file of ``pileus up``, the health file), and who waits may be asked to stop meanwhile.
"""

import fcntl
import time
from collections.abc import Callable
from typing import IO

_POLL_S = 0.02


def try_lock(file: IO[str] | IO[bytes] | int, *, shared: bool = False) -> bool:
    """Lock an open file, until it is closed; False if another process holds it."""
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock(
    file: IO[str] | IO[bytes] | int,
    timeout_s: float,
    *,
    shared: bool = False,
    poll_s: float = _POLL_S,
    pause: Callable[[float], None] = time.sleep,
) -> bool:
    """Lock an open file, until it is closed; False if another process still holds it after ``timeout_s``.

    ``pause`` waits between two attempts; what it raises ends the wait.
    """
    deadline = time.monotonic() + timeout_s
    while not try_lock(file, shared=shared):
        if time.monotonic() > deadline:
            return False
        pause(poll_s)
    return True
