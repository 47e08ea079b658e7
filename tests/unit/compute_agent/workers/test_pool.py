"""The worker pool: bounded, fair, never twice at once on one guest."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compute_agent.errors import WorkAbandoned
from compute_agent.workers.boot_limiter import BootLimiter
from compute_agent.workers.pool import FairQueue, Job, WorkerPool
from controller.domain.guests import Desired
from tests.labs.agent import RecordingAgent, guest, instance
from tests.labs.waiting import wait_for


@given(st.lists(st.integers(0, 3), max_size=40))
def test_projects_take_turns(projects: list[int]) -> None:
    queue = FairQueue()
    for number, project in enumerate(projects):
        queue.put(str(project), Job(None, instance(number), str(project), True))  # type: ignore[arg-type]
    taken = []
    while (job := queue.take()) is not None:
        taken.append(job)
    assert len(taken) == len(projects)
    for project in set(projects):
        own = [j.instance_id for j in taken if j.project_id == str(project)]
        assert own == sorted(own)
    first_round = [j.project_id for j in taken[: len(set(projects))]]
    assert len(set(first_round)) == len(first_round)


def test_no_more_at_once_than_there_are_workers_and_each_guest_once() -> None:
    agent = RecordingAgent(lambda _: time.sleep(0.01))
    done = threading.Semaphore(0)
    pool = WorkerPool(3, lambda _: done.release())
    for _ in range(2):
        for number in range(20):
            pool.offer(agent, guest(number))  # type: ignore[arg-type]
    wait_for(lambda: len(set(agent.worked)) == 20)
    assert pool.stop(5)
    assert agent.most_at_once <= 3


def test_what_comes_during_the_work_is_worked_on_after_it() -> None:
    gate, began = threading.Event(), threading.Event()

    def work(_: str) -> None:
        began.set()
        gate.wait(5)

    agent = RecordingAgent(work)
    pool = WorkerPool(2, lambda _: None)
    pool.offer(agent, guest(1))  # type: ignore[arg-type]
    assert began.wait(5)
    pool.offer(agent, guest(1, 2, Desired.ABSENT))  # type: ignore[arg-type]
    pool.offer(agent, guest(1, 3, Desired.ABSENT))  # type: ignore[arg-type]
    gate.set()
    wait_for(lambda: len(agent.worked) == 2)
    assert pool.stop(5)
    assert len(agent.worked) == 2


def test_a_removal_that_comes_during_a_boot_follows_it_at_once() -> None:
    """It needs no slot, and waits for none of the boots that do."""
    gate, began = threading.Event(), threading.Event()

    def work(_: str) -> None:
        began.set()
        gate.wait(5)

    agent = RecordingAgent(work)
    pool = WorkerPool(4, lambda _: None, limiter=BootLimiter(1, fixed=1))
    pool.offer(agent, guest(1))  # type: ignore[arg-type]
    assert began.wait(5)
    for number in range(2, 30):
        pool.offer(agent, guest(number))  # type: ignore[arg-type]
    pool.offer(agent, guest(1, 2, Desired.ABSENT))  # type: ignore[arg-type]
    gate.set()
    wait_for(lambda: agent.worked[:2] == [instance(1)] * 2)
    assert pool.stop(5)
    assert agent.worked == [instance(1)] * 2


def test_a_pause_is_kept_unless_something_new_comes() -> None:
    pauses = iter([0.0, 60.0, None])
    agent = RecordingAgent(lambda _: next(pauses))
    pool = WorkerPool(1, lambda _: None)
    pool.offer(agent, guest(1))  # type: ignore[arg-type]
    wait_for(lambda: pool.next_due_s() is not None)
    pool.run_due()
    assert len(agent.worked) == 2
    pool.offer(agent, guest(1, 2))  # type: ignore[arg-type]
    wait_for(lambda: len(agent.worked) == 3)
    assert pool.stop(5)


def test_removals_do_not_wait_for_boots() -> None:
    gate = threading.Event()
    agent = RecordingAgent(lambda i: None if i == instance(9) else (gate.wait(5), None)[1])
    pool = WorkerPool(1, lambda _: None)
    pool.offer(agent, guest(1))  # type: ignore[arg-type]
    pool.offer(agent, guest(2))  # type: ignore[arg-type]
    pool.offer(agent, guest(9, 2, Desired.ABSENT))  # type: ignore[arg-type]
    wait_for(lambda: instance(9) in agent.worked)
    gate.set()
    assert pool.stop(5)


def test_it_stops_in_bounded_time() -> None:
    stop = threading.Event()

    def work(_: str) -> None:
        if stop.wait(10):
            raise WorkAbandoned

    agent = RecordingAgent(work)
    pool = WorkerPool(1, lambda _: None)
    for number in range(5):
        pool.offer(agent, guest(number))  # type: ignore[arg-type]
    wait_for(lambda: len(agent.worked) == 1)
    assert not pool.stop(0.05)
    stop.set()
    assert pool.stop(5)
    pool.offer(agent, guest(7))  # type: ignore[arg-type]
    assert len(agent.worked) == 1


def test_a_host_without_threads_makes_work_wait_not_vanish(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = RecordingAgent()
    pool = WorkerPool(1, lambda _: None, waiters=1)
    with monkeypatch.context() as starved:
        starved.setattr(threading.Thread, "start", _no_thread)
        pool.offer(agent, guest(1))  # type: ignore[arg-type]
        pool.run_due()
        assert agent.worked == []
    pool.run_due()
    wait_for(lambda: agent.worked == [instance(1)])
    assert pool.stop(10)


def _no_thread(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_only_boots_wait_for_a_slot() -> None:
    agent = RecordingAgent()
    pool = WorkerPool(4, lambda _: None, limiter=BootLimiter(2))
    for number in range(5):
        pool.offer(agent, guest(number))  # type: ignore[arg-type]
    wait_for(lambda: len(pool.booting()) == 2)
    pool.offer(agent, guest(9, 2, Desired.ABSENT))  # type: ignore[arg-type]
    pool.offer(agent, guest(4, 2, Desired.ABSENT))  # type: ignore[arg-type]
    wait_for(lambda: {instance(9), instance(4)} <= set(agent.worked))
    assert set(agent.worked) == {instance(n) for n in (0, 1, 9, 4)}
    time.sleep(0.6)  # so old must a guest be that is taken for one that has ended
    pool.watch_boots({})
    wait_for(lambda: set(agent.worked) == {instance(n) for n in (0, 1, 2, 3, 9, 4)})
    assert pool.stop(5)
    assert len(agent.worked) == 6  # the one that was removed while it waited is not booted after all


def test_job_without_a_boot_holds_no_slot() -> None:
    agent = RecordingAgent()
    agent.done = {instance(n) for n in range(20)}
    pool = WorkerPool(2, lambda _: None, limiter=BootLimiter(1))
    for number in range(20):
        pool.offer(agent, guest(number))  # type: ignore[arg-type]
    wait_for(lambda: len(agent.worked) == 20)
    assert pool.booting() == ()
    assert pool.stop(5)


def test_failed_boot_frees_its_slot() -> None:
    agent = RecordingAgent(lambda i: 60.0 if i == instance(0) else None)
    pool = WorkerPool(1, lambda _: None, limiter=BootLimiter(1))
    for number in range(2):
        pool.offer(agent, guest(number))  # type: ignore[arg-type]
    wait_for(lambda: agent.worked == [instance(0), instance(1)])
    wait_for(lambda: len(pool.booting()) == 1)
    assert pool.stop(5)


def test_boots_wait_for_a_slot_and_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = RecordingAgent()
    pool = WorkerPool(2, lambda _: None, limiter=BootLimiter(2))
    with monkeypatch.context() as starved:
        starved.setattr(threading.Thread, "start", _no_thread)
        pool.offer(agent, guest(1))  # type: ignore[arg-type]
        for _ in range(100):
            pool.watch_boots({})
        assert agent.worked == []
        assert len(pool._without_thread) == 1
    pool.run_due()
    wait_for(lambda: agent.worked == [instance(1)])
    assert pool.stop(10)
