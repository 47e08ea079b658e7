"""Waiting for a condition, with a deadline."""

import threading
import time
from collections.abc import Callable


def wait_for(condition: Callable[[], object], timeout_s: float = 30) -> None:
    """Wait on a condition, with a deadline."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        threading.Event().wait(0.02)
