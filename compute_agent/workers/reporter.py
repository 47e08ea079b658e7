"""Reports results of work on guests to the controller, those of all agents of a process together."""

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

import structlog

from compute_agent.agent import Agent
from compute_agent.unreported import REPORTS_IN_A_MESSAGE
from compute_agent.workers.pool import WorkerPool
from controller.bus.sender import Sender
from controller.domain.errors import BusUnavailable, CloudError
from controller.domain.messages import GuestsChanged

T = TypeVar("T")
log = structlog.get_logger(__name__)

# Results that come one after the other go in one message.
_LINGER_S = 0.01
_RETRY_S = 1.0


class Reporter:
    """Knows which agents may have news; ``run`` is a thread's body."""

    def __init__(self, bus: Sender, stop: threading.Event) -> None:
        self._bus = bus
        self._stop = stop
        self._changed = threading.Condition()
        self._dirty: dict[Agent, None] = {}

    def mark_dirty(self, agent: Agent) -> None:
        """There may be something to report, or to do after a pause."""
        with self._changed:
            self._dirty[agent] = None
            self._changed.notify_all()

    def wake(self) -> None:
        """Have ``run`` look whether it is to end."""
        with self._changed:
            self._changed.notify_all()

    def run(self, pool: WorkerPool) -> None:
        """Send results, and wake work that the pool has paused, until ``stop``."""
        while not self._stop.is_set():
            try:
                self._round(pool)
            except Exception:
                log.exception("not reported yet")
                self._stop.wait(_RETRY_S)

    def flush(self) -> None:
        """Send what has not been sent; nothing more once the bus does not take it: it goes after the next start."""
        for agent in self._taken():
            if not guarded(agent, agent.report):
                return

    def _round(self, pool: WorkerPool) -> None:
        with self._changed:
            if not self._dirty:
                due_s = pool.next_due_s()
                self._changed.wait(_RETRY_S if due_s is None else min(due_s, _RETRY_S))
        self._stop.wait(_LINGER_S)
        pool.run_due()
        agents = again = self._taken()
        try:
            again = self._tell(agents)
        finally:
            with self._changed:
                self._dirty.update(dict.fromkeys(again))
        if again:
            self._stop.wait(_RETRY_S)

    def _taken(self) -> Sequence[Agent]:
        with self._changed:
            agents, self._dirty = list(self._dirty), {}
        return agents

    def _tell(self, agents: Sequence[Agent]) -> Sequence[Agent]:
        """Send the news of all of them together; answers with those that are to be asked again."""
        again: list[Agent] = []
        news: list[tuple[Agent, GuestsChanged]] = []
        for agent in agents:
            asked = guarded(agent, lambda a=agent: (a.unreported(),))  # type: ignore[misc]
            if asked is None:
                again.append(agent)  # its journal could not be read: there may be news
            elif (message := asked[0]) is not None:
                news.append((agent, message))
        try:
            self._bus.send_all([message for _, message in news])
        except BusUnavailable as error:
            log.warning("not reported yet", hosts=len(news), reason=str(error))
            return again + [agent for agent, _ in news]
        for agent, message in news:
            marked = guarded(agent, lambda a=agent, m=message: (a.mark_reported(m),))  # type: ignore[misc]
            if marked is None or max(len(message.reports), len(message.outdated)) >= REPORTS_IN_A_MESSAGE:
                again.append(agent)
        return again


def guarded(agent: Agent, task: Callable[[], T]) -> T | None:
    """What the task returns; None if it failed: a timer goes on after any error.

    ``agent.troubles`` says which tasks failed when they were last tried.
    """
    name = getattr(task, "__name__", "report")
    try:
        done = task()
        agent.troubles.pop(name, None)
        return done  # noqa: TRY300
    except CloudError as error:
        agent.troubles[name] = str(error)
        log.warning("not done, tried again later", host=agent.host, task=name, reason=str(error))
    except Exception as error:
        agent.troubles[name] = f"{type(error).__name__}: {error}"
        log.exception("not done, tried again later", host=agent.host, task=name)
    return None
