"""How many guests of a host boot at once: as many as its cores carry, measured, not guessed.

A slot is taken when work on a boot starts, and freed when the guest has settled: it has wanted little of the CPU for a
while. A guest that never settles loses its slot after a bounded time, which is shorter the more boots wait, so that no
instance waits here until the deadline of its state.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from compute_agent.workers.cpu_gauge import Pressure

Key = tuple[str, str]  # host, instance

TICK_S = 0.25
# A guest has settled when it has wanted less than this share of what a booting one gets, for so many seconds.
_SETTLED_SHARE, _SETTLED_S = 0.25, 0.75
# Before that it may not have started.
_YOUNG_S = 0.5
# A boot that takes longer goes on without a slot.
_HOLD_S = 60.0
# All boots that wait are to be started within this time, which is before the deadline of BUILDING.
_DRAIN_S = 600.0
# Idle above 8 %: raise the limit by one. CPU pressure above 85 %: cut it by a quarter, but not below one for each core,
# so that boots get their share of a host that is busy with other work.
_IDLE_SHARE, _CROWDED_SHARE = 0.08, 0.85
_MOST_PER_CORE = 16


@dataclass
class _Slot:
    began: float
    running_since: float | None = None
    cpu_s: float = 0.0
    read_at: float = 0.0
    busy_at: float = 0.0


class BootLimiter:
    """The slots; the worker pool's lock guards it. Times are seconds of one monotonic clock."""

    def __init__(self, cores: int, *, fixed: int = 0) -> None:
        """``fixed``: always so many; 0: measured, at first one for each core."""
        self._cores = cores
        self._fixed = fixed
        self._slots: dict[Key, _Slot] = {}
        self._was_full = False
        self.limit = fixed or cores

    @property
    def free(self) -> int:
        """How many more boots may start."""
        return max(0, self.limit - len(self._slots))

    def enter(self, key: Key, now: float) -> bool:
        """Take a slot for a boot; False if there is none."""
        if key in self._slots:
            return True
        if not self.free:
            self._was_full = True
            return False
        self._slots[key] = _Slot(now)
        return True

    def running(self, key: Key, now: float) -> None:
        """The guest's domain runs: from now on its CPU time is watched."""
        if (slot := self._slots.get(key)) is not None:
            slot.running_since = slot.busy_at = slot.read_at = now

    def leave(self, key: Key) -> None:
        """Free the slot: nothing was booted, or it failed."""
        self._slots.pop(key, None)

    def booting(self) -> tuple[Key, ...]:
        """The guests to be asked for the CPU time they want."""
        return tuple(k for k, p in self._slots.items() if p.running_since is not None)

    def __len__(self) -> int:
        return len(self._slots)

    def watch(self, now: float, wanted_cpu_s: Mapping[Key, float], waiting: int) -> None:
        """Free the slots of guests that have settled, have ended, or have held one for too long.

        ``wanted_cpu_s``: what each guest has used and has waited for since its start, of one core; a guest that is
        missing has ended. ``waiting``: boots without a slot.
        """
        hold_s = self._hold_s(waiting)
        share = min(1.0, self._cores / max(1, len(self._slots)))
        self._was_full |= bool(waiting) and not self.free
        for key in self.booting():
            slot = self._slots[key]
            assert slot.running_since is not None
            age_s = now - slot.running_since
            if age_s >= hold_s or (age_s >= _YOUNG_S and self._is_settled(slot, wanted_cpu_s.get(key), now, share)):
                del self._slots[key]

    def adapt(self, pressure: Pressure) -> None:
        """Adapt the limit to the load of the host's cores: additive increase, multiplicative decrease."""
        was_full, self._was_full = self._was_full, False
        if self._fixed:
            return
        if pressure.waiting > _CROWDED_SHARE and pressure.idle < _IDLE_SHARE:
            self.limit = max(self._cores, min(self.limit - 1, self.limit * 3 // 4))
        elif pressure.idle > _IDLE_SHARE and was_full:  # a limit that was not reached stays
            self.limit = min(self.limit + 1, _MOST_PER_CORE * self._cores)

    def _is_settled(self, slot: _Slot, cpu_s: float | None, now: float, share: float) -> bool:
        if cpu_s is None:
            return True
        elapsed_s = now - slot.read_at
        if elapsed_s > 0:
            if cpu_s - slot.cpu_s >= elapsed_s * share * _SETTLED_SHARE:
                slot.busy_at = now
            slot.cpu_s, slot.read_at = cpu_s, now
        return now - slot.busy_at >= _SETTLED_S

    def _hold_s(self, waiting: int) -> float:
        return min(_HOLD_S, _DRAIN_S * self.limit / waiting) if waiting else _HOLD_S
