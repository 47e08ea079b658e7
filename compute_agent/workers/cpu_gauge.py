"""How busy the host's cores are (proc_stat(5), https://docs.kernel.org/accounting/psi.html)."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_IDLE_FIELDS = (3, 4)  # idle, iowait
_GUEST_FIELDS = 8  # guest time is in user time already


@dataclass(frozen=True)
class Pressure:
    """Since the last reading: the share of the cores' time without work, and of the time in which work waited."""

    idle: float
    waiting: float


class CpuGauge:
    """Reads the counters of the kernel; the first reading has nothing to compare with."""

    def __init__(self, now: Callable[[], float], proc: Path = Path("/proc")) -> None:
        self._now = now
        self._proc = proc
        self._last: tuple[float, int, int, int | None] | None = None

    def read(self) -> Pressure | None:
        """The pressure since the last call; None when it is not known."""
        text = (self._proc / "stat").read_text()
        ticks = [int(n) for n in text.splitlines()[0].split()[1:]][:_GUEST_FIELDS]
        reading = (self._now(), sum(ticks), sum(ticks[i] for i in _IDLE_FIELDS), self._waited_us())
        last, self._last = self._last, reading
        if last is None or reading[0] <= last[0] or reading[1] <= last[1]:
            return None
        idle = (reading[2] - last[2]) / (reading[1] - last[1])
        if reading[3] is None or last[3] is None:
            return Pressure(idle, _crowd(text))
        return Pressure(idle, min(1.0, (reading[3] - last[3]) / 1e6 / (reading[0] - last[0])))

    def _waited_us(self) -> int | None:
        """Microseconds since the boot in which some work waited for a core; None where the kernel does not count."""
        try:
            found = re.search(r"^some .*\btotal=(\d+)", (self._proc / "pressure/cpu").read_text(), re.MULTILINE)
        except OSError:
            return None
        return int(found[1]) if found else None


def _crowd(stat: str) -> float:
    """Of the moment: 0 where every core has one piece of work at most, 1 where each has another one waiting."""
    found = re.search(r"^procs_running (\d+)", stat, re.MULTILINE)
    cores = os.cpu_count() or 1
    return min(1.0, max(0.0, (int(found[1]) - cores) / cores)) if found else 0.0
