"""The boot limiter, on a clock of its own."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compute_agent.workers.boot_limiter import TICK_S, BootLimiter, Key
from compute_agent.workers.cpu_gauge import CpuGauge, Pressure

IDLE, BUSY, CROWDED = Pressure(0.5, 0.1), Pressure(0.0, 0.5), Pressure(0.0, 0.98)


def key(number: int) -> Key:
    return "node-1", f"i-{number:017x}"


def begin(limiter: BootLimiter, count: int, now: float = 0.0) -> None:
    for number in range(count):
        assert limiter.enter(key(number), now)
        limiter.running(key(number), now)


def run(limiter: BootLimiter, share: dict[Key, float], *, until: float, waiting: int = 0) -> float:
    """Let guests want these shares of a core; when the first slot was freed, or ``until``."""
    full = len(limiter)
    for tick in range(1, int(until / TICK_S) + 1):
        now = tick * TICK_S
        limiter.watch(now, {k: s * now for k, s in share.items()}, waiting)
        if len(limiter) < full:
            return now
    return until


def test_no_more_than_the_limit() -> None:
    limiter = BootLimiter(2)
    begin(limiter, 2)
    assert not limiter.enter(key(2), 0)
    limiter.leave(key(0))
    assert limiter.enter(key(2), 0)
    assert limiter.enter(key(2), 0)
    assert limiter.free == 0


def test_settled_guest_frees_its_slot() -> None:
    limiter = BootLimiter(2)
    begin(limiter, 2)
    assert run(limiter, {key(0): 0.9, key(1): 0.01}, until=30) <= 1.5
    assert limiter.booting() == (key(0),)


def test_one_that_is_crowded_out_still_boots() -> None:
    """Eight on two cores get a quarter of one each: that is no rest."""
    limiter = BootLimiter(2, fixed=8)
    begin(limiter, 8)
    assert run(limiter, {key(n): 0.2 for n in range(8)}, until=30) == 30


def test_ended_guest_frees_its_slot() -> None:
    limiter = BootLimiter(2)
    begin(limiter, 1)
    assert run(limiter, {}, until=30) <= 1


def test_guest_that_never_settles_frees_its_slot_in_time() -> None:
    limiter = BootLimiter(1)
    begin(limiter, 1)
    assert 30 < run(limiter, {key(0): 1.0}, until=120) <= 60


@given(waiting=st.integers(1, 2000), cores=st.integers(1, 64))
def test_every_boot_starts_before_the_deadline_of_building(waiting: int, cores: int) -> None:
    """Even if no guest ever settles: so many turns of so many slots."""
    limiter = BootLimiter(cores)
    begin(limiter, cores)
    hold_s = run(limiter, {key(n): 1.0 for n in range(cores)}, until=120, waiting=waiting)
    assert hold_s <= max(TICK_S, 600 * cores / waiting + TICK_S)


def test_it_grows_while_cores_idle_and_it_is_what_limits() -> None:
    limiter = BootLimiter(2)
    limiter.adapt(IDLE)
    assert limiter.limit == 2  # no boot waits
    begin(limiter, 2)
    limiter.watch(0.1, {}, 5)
    limiter.adapt(IDLE)
    assert limiter.limit == 3
    limiter.adapt(IDLE)
    assert limiter.limit == 3  # not seen full since


def test_it_shrinks_where_work_waits_for_cores_but_keeps_one_for_each() -> None:
    limiter = BootLimiter(2)
    limiter.limit = 16
    seen = []
    for _ in range(12):
        limiter.adapt(CROWDED)
        seen.append(limiter.limit)
    assert seen[:4] == [12, 9, 6, 4]
    assert seen[-1] == 2
    limiter.adapt(BUSY)
    assert limiter.limit == 2


@given(st.lists(st.sampled_from([IDLE, BUSY, CROWDED]), max_size=200))
def test_it_stays_within_its_bounds(pressures: list[Pressure]) -> None:
    limiter = BootLimiter(2)
    begin(limiter, 2)
    for pressure in pressures:
        limiter.watch(0.1, dict.fromkeys(limiter.booting(), 1.0), 100)
        limiter.adapt(pressure)
        assert 2 <= limiter.limit <= 32


def test_a_fixed_one_stays() -> None:
    limiter = BootLimiter(2, fixed=7)
    for pressure in (IDLE, CROWDED) * 3:
        limiter.watch(0.1, {}, 5)
        limiter.adapt(pressure)
    assert limiter.limit == 7


class Proc:
    """Two readings of /proc."""

    def __init__(self, folder: Path, *, psi: bool) -> None:
        self.folder, self._psi = folder, psi
        (folder / "pressure").mkdir()

    def say(self, busy: int, idle: int, waited_us: int, running: int) -> None:
        (self.folder / "stat").write_text(f"cpu  {busy} 0 0 {idle} 0 0 0 0 9 9\ncpu0 1 1\nprocs_running {running}\n")
        if self._psi:
            line = f"some avg10=0.00 avg60=0.00 avg300=0.00 total={waited_us}\n"
            (self.folder / "pressure/cpu").write_text(line + line.replace("some", "full"))


@pytest.mark.parametrize("psi", [True, False])
def test_the_gauge_compares_two_readings(tmp_path: Path, psi: bool) -> None:
    times = iter([10.0, 12.0, 12.0])
    proc = Proc(tmp_path, psi=psi)
    gauge = CpuGauge(lambda: next(times), tmp_path)
    proc.say(1000, 1000, 5_000_000, 1)
    assert gauge.read() is None
    proc.say(1150, 1050, 6_500_000, 1)
    assert gauge.read() == Pressure(0.25, 0.75 if psi else 0.0)
    assert gauge.read() is None  # no time has passed


def test_the_gauge_reads_this_machine() -> None:
    times = iter([0.0, 1.0])
    gauge = CpuGauge(lambda: next(times))
    assert gauge.read() is None
