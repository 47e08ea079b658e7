"""Time as an argument: the wall's, or a virtual one."""

import time
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]


def system_clock() -> datetime:
    """The time now, in UTC."""
    return datetime.now(UTC)


def uptime_s() -> float:
    """Seconds since the machine was booted. It never steps, and time in which the machine is suspended counts."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
