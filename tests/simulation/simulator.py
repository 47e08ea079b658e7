"""Virtual time, and the processes that live in it: one thread, one seed, always the same order.

What is due next runs next. Where a running piece of code pauses, what is due meanwhile runs on top of it, on the same
stack, and it goes on afterwards: so others can get in between any two steps that may be paused at.
"""

import hashlib
import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import TypeVar

from controller.domain.errors import CloudError
from tests.labs.cloud import START
from tests.simulation.faults import Fault, Faults
from tests.simulation.releases import Release

T = TypeVar("T")

# How many paused pieces of code may lie on the stack.
_MAX_DEPTH = 5
_TAIL = 400


class Crash(BaseException):
    """The process ends here, as by kill -9; nothing that catches Exception sees it."""


@dataclass(eq=False)
class Process:
    """One process of the site. ``boot`` makes its memory anew; ``on_death`` is undone with it."""

    name: str
    boot: Callable[["Process"], None]
    release: Release = field(default_factory=Release)
    incarnation: int = 0
    alive: bool = False
    gone: bool = False
    up_since: float = 0.0
    frozen_until: float = 0.0
    cut_off_until: float = 0.0
    skew_s: float = 0.0
    killed_at: float = 0.0
    outages: list[tuple[float, float]] = field(default_factory=list)
    held_up: list["HeldUp"] = field(default_factory=list)
    on_death: list[Callable[[], None]] = field(default_factory=list)

    def away_s(self, since: float, until: float) -> float:
        """For how long it could do nothing, or not reach any other, or not go on where it had paused, in this time."""
        outages = [*self.outages, *((h.begin, h.end) for h in self.held_up)]
        if not self.alive:
            outages.append((self.killed_at, until))
        away_s, reached = 0.0, since
        for begin, end in sorted(outages):
            away_s += max(0.0, min(end, until) - max(begin, reached))
            reached = max(reached, end)
        return away_s


@dataclass(eq=False)
class HeldUp:
    """A pause that lasted longer than it was to: what lay on top of it on the stack was paused, too."""

    begin: float
    end: float = math.inf


@dataclass(eq=False)
class Task:
    """A piece of code that runs in a process."""

    process: Process
    incarnation: int
    writing: bool = False

    @property
    def dead(self) -> bool:
        """Whether its process has ended under it: it may only unwind."""
        return self.incarnation != self.process.incarnation


@dataclass
class Simulator:
    """The seeded scheduler. ``point`` is called at every seam of the services: faults strike there."""

    random: Random
    faults: Faults
    echo: Callable[[str], None] | None = None
    now: float = 0.0
    steps: int = 0
    current: Task | None = None
    surprises: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._due: list[tuple[float, int, Callable[[], None], Process | None, int]] = []
        self._numbers = itertools.count()
        self._depth = 0
        self._digest = hashlib.sha256()
        self.tail: deque[str] = deque(maxlen=_TAIL)

    # --- time ---

    def at(self, delay_s: float, action: Callable[[], None], process: Process | None = None) -> None:
        """Have something done later; in a process, unless that has ended by then."""
        incarnation = process.incarnation if process else 0
        heapq.heappush(self._due, (self.now + delay_s, next(self._numbers), action, process, incarnation))

    def run_until(self, end: float) -> None:
        """Do all that is due until then."""
        while self._due and self._due[0][0] <= end:
            due, _, action, process, incarnation = heapq.heappop(self._due)
            self.now = max(self.now, due)
            if process is None:
                self._undisturbed(action)
            elif process.alive and process.incarnation == incarnation:
                if process.frozen_until > self.now:
                    self.at(process.frozen_until - self.now, action, process)
                else:
                    self.run(process, action)
        self.now = max(self.now, end)

    def pause(self, seconds: float) -> None:
        """The running code waits; others go on. Raises Crash where its process has ended meanwhile."""
        task = self.current
        if task is None or task.dead or self._depth >= _MAX_DEPTH or task.writing:
            return
        self._depth += 1
        held_up = HeldUp(self.now + seconds)
        task.process.held_up.append(held_up)
        try:
            self.run_until(self.now + seconds)
            while not task.dead and task.process.frozen_until > self.now:
                self.run_until(task.process.frozen_until)
        finally:
            self._depth -= 1
            self.current = task
            held_up.end = min(held_up.end, self.now)
            if held_up.end <= held_up.begin:
                task.process.held_up.remove(held_up)
        if task.dead:
            raise Crash

    @property
    def true_time(self) -> datetime:
        """The time, as the database's server has it."""
        return START + timedelta(seconds=self.now)

    def clock(self, process: Process) -> datetime:
        """What the process takes for the time."""
        return self.true_time + timedelta(seconds=process.skew_s)

    # --- processes ---

    def run(self, process: Process, work: Callable[[], T]) -> tuple[bool, T | None]:
        """Run code in a process; answers whether it came to its end, and with what."""
        outer, self.current = self.current, Task(process, process.incarnation)
        task = self.current
        try:
            return True, work()
        except Crash:
            if not task.dead:
                self.kill(process)
            return False, None
        finally:
            self.current = outer

    def start(self, process: Process) -> None:
        """Begin a process, with nothing in its memory."""
        if process.alive or process.gone:
            return
        process.incarnation += 1
        process.outages.append((process.killed_at, self.now))
        process.alive, process.up_since, process.frozen_until = True, self.now, 0.0
        self.note("starts", process)
        self.run(process, lambda: process.boot(process))

    def kill(self, process: Process) -> None:
        """End a process as kill -9 does; its supervisor starts it again after a while."""
        if not process.alive:
            return
        self.note("is killed", process)
        process.alive, process.killed_at = False, self.now
        for held_up in process.held_up:
            held_up.end = min(held_up.end, self.now)
        process.incarnation += 1
        undo, process.on_death = process.on_death, []
        for action in undo:
            self._undisturbed(action)
        away_s = self.random.uniform(100, 300) if self.random.random() < 0.05 else self.random.uniform(0.1, 15)
        self.at(away_s, lambda: self.start(process))

    def every(self, process: Process, seconds: Callable[[], float], work: Callable[[], object]) -> None:
        """Repeat work in a process as ``Periodic`` does: whatever goes wrong, the next round comes."""

        def round_() -> None:
            try:
                work()
            except CloudError as error:
                self.note(f"round failed: {error}")
            except Exception as error:
                self.surprise(error)
            self.at(seconds() * self.random.uniform(0.9, 1.1), round_, process)

        self.at(seconds() * self.random.random(), round_, process)

    # --- seams ---

    def point(self, what: str) -> None:
        """A seam: here the process may end, or wait while others go on."""
        task = self.current
        if task is None or task.dead:
            return
        self.steps += 1
        self._digest.update(f"{self.now:.6f} {task.process.name} {what}\n".encode())
        if self.faults.strikes(Fault.CRASH):
            self.note(f"crashes at {what}")
            raise Crash
        if not task.writing and self.faults.strikes(Fault.PAUSE):
            seconds = self.random.uniform(5, 90) if self.random.random() < 0.1 else self.random.expovariate(2)
            self.note(f"pauses {seconds:.2f} s at {what}")
            self.pause(seconds)

    # --- the trace ---

    def note(self, text: str, process: Process | None = None) -> None:
        """A line of the trace."""
        if process is None and self.current is not None:
            process = self.current.process
        line = f"{self.now:10.3f} {process.name if process else 'site':12} {text}"
        self._digest.update(line.encode())
        self.tail.append(line)
        if self.echo:
            self.echo(line)

    def surprise(self, error: Exception) -> None:
        """An error that no fault explains: the seed has failed."""
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        self.note(f"SURPRISE {text}")
        self.surprises.append(text)

    @property
    def digest(self) -> str:
        """The hash of all that happened."""
        return self._digest.hexdigest()

    def _undisturbed(self, action: Callable[[], None]) -> None:
        """Run what belongs to no process."""
        outer, self.current = self.current, None
        try:
            action()
        finally:
            self.current = outer
