"""The worker pool: bounded, fair between projects, one thread at most for each guest."""

import heapq
import itertools
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum, auto

import structlog

from compute_agent.agent import Agent
from compute_agent.errors import WorkAbandoned
from compute_agent.hypervisor import WAITERS
from compute_agent.workers.boot_limiter import BootLimiter, Key
from compute_agent.workers.cpu_gauge import Pressure
from controller.domain.errors import Unavailable
from controller.domain.guests import Desired
from controller.domain.messages import GuestSpec

log = structlog.get_logger(__name__)


_UNAVAILABLE_PAUSE_S = 1.0


class FairQueue:
    """First come, first served within a project; projects take turns."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[Job]] = OrderedDict()

    def put(self, project_id: str, job: "Job") -> None:
        self._waiting.setdefault(project_id, deque()).append(job)

    def take(self) -> "Job | None":
        if not self._waiting:
            return None
        project_id, jobs = self._waiting.popitem(last=False)
        job = jobs.popleft()
        if jobs:
            self._waiting[project_id] = jobs
        return job


@dataclass(frozen=True, eq=False)
class Job:
    """One guest to be worked on."""

    agent: Agent
    instance_id: str
    project_id: str
    boots: bool

    @property
    def key(self) -> Key:
        return self.agent.host, self.instance_id


class _Stage(Enum):
    QUEUED = auto()
    WORKING = auto()
    WORKING_THEN_AGAIN = auto()
    PAUSED = auto()


class WorkerPool:
    """Threads that work on guests; ``done`` is called after each piece of work, ``run_due`` by a timer.

    With a ``limiter``, a boot starts when there is a slot in it; ``watch_boots`` and ``adapt`` are called by a timer.
    """

    def __init__(
        self,
        workers: int,
        done: Callable[[Agent], None],
        waiters: int = WAITERS,
        limiter: BootLimiter | None = None,
    ) -> None:
        self._done = done
        self._limiter = limiter
        self._lock = threading.Lock()
        self._stages: dict[Key, _Stage] = {}
        self._queued: dict[Key, Job] = {}
        self._next: dict[Key, Job] = {}  # a job for a guest that is worked on now: it is the next
        self._paused: list[tuple[float, int, Job]] = []
        self._tickets: dict[Key, int] = {}
        self._numbers = itertools.count()
        self._queues = {True: FairQueue(), False: FairQueue()}
        self._pools = {
            True: ThreadPoolExecutor(workers, "boots"),
            False: ThreadPoolExecutor(waiters, "waits"),
        }
        self._without_thread: list[bool] = []
        self._requested = {True: 0, False: 0}  # calls that no thread has taken yet
        self._stopped = False
        self._idle = threading.Condition(self._lock)
        self._working = 0

    def offer(self, agent: Agent, spec: GuestSpec) -> None:
        """There may be work on this guest; it is started as soon as a worker thread is free."""
        boots = spec.desired is Desired.RUNNING and not spec.reboot
        job = Job(agent, spec.instance_id, spec.project_id, boots)
        with self._lock:
            stage = self._stages.get(job.key)
            if stage in (None, _Stage.PAUSED):
                self._tickets.pop(job.key, None)
                self._queue(job)
            elif stage is _Stage.QUEUED and self._queued[job.key].boots != boots:
                self._queue(job)  # a removal does not wait for a slot to boot
            elif stage in (_Stage.WORKING, _Stage.WORKING_THEN_AGAIN):
                self._stages[job.key] = _Stage.WORKING_THEN_AGAIN
                self._next[job.key] = job

    def next_due_s(self) -> float | None:
        """Seconds until ``run_due`` has something to do; None when nothing is paused."""
        with self._lock:
            return max(0.0, self._paused[0][0] - time.monotonic()) if self._paused else None

    def run_due(self) -> None:
        """Queue again what was paused and whose pause is over; ask again for threads where there were none."""
        with self._lock:
            without_thread, self._without_thread = self._without_thread, []
            for boots in without_thread:
                self._request_thread(boots)
            while self._paused and self._paused[0][0] <= time.monotonic():
                _, ticket, job = heapq.heappop(self._paused)
                if self._tickets.get(job.key) == ticket:
                    del self._tickets[job.key]
                    self._queue(job)

    def booting(self) -> tuple[Key, ...]:
        """The guests that hold a slot of the boot limiter and run."""
        with self._lock:
            return self._limiter.booting() if self._limiter else ()

    def watch_boots(self, wanted_cpu_s: Mapping[Key, float]) -> None:
        """Free the slots of guests that have settled (see ``BootLimiter.watch``) and start the next boots."""
        with self._lock:
            if self._limiter is not None:
                self._limiter.watch(time.monotonic(), wanted_cpu_s, self._boots_waiting())
                self._admit()

    def adapt(self, pressure: Pressure) -> None:
        """Raise or cut the limit of boots at once by the pressure on the host's cores."""
        with self._lock:
            if self._limiter is not None:
                self._limiter.adapt(pressure)
                self._admit()

    def stop(self, timeout_s: float) -> bool:
        """Start nothing more and wait for the work under way; False if some is left."""
        with self._lock:
            self._stopped = True
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
        with self._idle:
            return self._idle.wait_for(lambda: self._working == 0, timeout_s)

    def _queue(self, job: Job) -> None:
        if self._stopped:
            return
        self._stages[job.key] = _Stage.QUEUED
        self._queued[job.key] = job
        self._queues[job.boots].put(job.project_id, job)
        self._request_thread(job.boots)

    def _request_thread(self, boots: bool) -> None:
        """Have a thread take the next job; a call too many finds an empty queue."""
        if self._stopped:
            return
        self._requested[boots] += 1  # a call that finds no thread stays in the executor's queue
        try:
            self._pools[boots].submit(self._work_on_next, boots)
        except RuntimeError as error:  # the host is out of threads; ``run_due`` asks again
            log.warning("work waits for a thread", reason=str(error))
            self._without_thread.append(boots)

    def _take(self, boots: bool) -> Job | None:
        """The next job, with its slot; None if there is no job, or no slot."""
        if self._stopped or (boots and self._limiter is not None and not self._limiter.free):
            return None
        while (job := self._queues[boots].take()) is not None:
            if self._queued.get(job.key) is job:
                del self._queued[job.key]
                self._stages[job.key] = _Stage.WORKING
                self._working += 1
                if boots and self._limiter is not None:
                    self._limiter.enter(job.key, time.monotonic())
                return job
        return None

    def _admit(self) -> None:
        """Start as many boots as there are free slots."""
        if self._limiter is not None and not self._stopped:
            for _ in range(min(self._limiter.free, self._boots_waiting()) - self._requested[True]):
                self._request_thread(True)

    def _boots_waiting(self) -> int:
        return sum(1 for job in self._queued.values() if job.boots)

    def _work_on_next(self, boots: bool) -> None:
        with self._lock:
            self._requested[boots] -= 1
            job = self._take(boots)
        if job is None:
            return
        pause_s: float | None = None
        booted = False
        # What drivers log of this guest carries its id, too.
        bound = structlog.contextvars.bind_contextvars(host=job.agent.host, instance=job.instance_id)
        try:
            wanted = boots and self._limiter is not None and job.agent.has_work(job.instance_id)
            pause_s = job.agent.work(job.instance_id)
            booted = wanted and pause_s is None
        except WorkAbandoned:
            log.info("work left for the next start", host=job.agent.host, instance=job.instance_id)
        except Unavailable as error:
            log.warning("work is held up", host=job.agent.host, instance=job.instance_id, reason=str(error))
            pause_s = _UNAVAILABLE_PAUSE_S
        except Exception:
            log.exception("work is held up", host=job.agent.host, instance=job.instance_id)
            pause_s = _UNAVAILABLE_PAUSE_S
        finally:
            structlog.contextvars.reset_contextvars(**bound)
            self._finish(job, pause_s, booted)
        self._done(job.agent)

    def _finish(self, job: Job, pause_s: float | None, booted: bool) -> None:
        with self._lock:
            self._working -= 1
            self._idle.notify_all()
            if job.boots and self._limiter is not None:
                if booted:
                    self._limiter.running(job.key, time.monotonic())
                else:
                    self._limiter.leave(job.key)
            again = self._stages.pop(job.key) is _Stage.WORKING_THEN_AGAIN
            job = self._next.pop(job.key, job)  # a removal that came during a boot is no boot
            if again or pause_s == 0:
                self._queue(job)
            elif pause_s is not None:
                ticket = next(self._numbers)
                self._stages[job.key] = _Stage.PAUSED
                self._tickets[job.key] = ticket
                heapq.heappush(self._paused, (time.monotonic() + pause_s, ticket, job))
            if not booted:
                self._admit()
