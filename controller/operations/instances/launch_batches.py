"""Launches that arrive at the same time, in one transaction: they would wait for each other's commit anyway."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar
from weakref import WeakValueDictionary

import structlog
from sqlalchemy.exc import IntegrityError

from controller.domain.errors import CloudError, Unavailable
from controller.operations.cloud import Cloud, Transaction
from controller.operations.instances.launch import Launched, Separately, launch, launch_together
from controller.operations.instances.launch_requests import LaunchRequest

T = TypeVar("T")
log = structlog.get_logger(__name__)

# Requests and instances of one transaction at most: it is to be short, and the project's row is locked meanwhile.
MOST_REQUESTS = 50
MOST_INSTANCES = 2000

# A launch waits this long for its turn, then at the lock of the row. While the database is away every caller is told so
# without waiting for the others.
_TURN_S = 3.0


@dataclass(eq=False)
class _Turn:
    """One caller's request, and what became of it. Woken without an outcome, it is to lead the next transaction."""

    request: LaunchRequest
    woken: threading.Event = field(default_factory=threading.Event)
    outcome: Launched | BaseException | None = None


class LaunchBatcher:
    """Launches for the callers of one process. The first caller leads, without waiting for others; one that comes while
    a transaction of the same kind of request is under way waits, and shares the next one. Each caller is answered
    after the commit of its own rows, as if it had been alone."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._lock = threading.Lock()
        # Of each kind that is under way, the callers that wait, without the one that leads.
        self._waiting: dict[LaunchRequest, list[_Turn]] = {}
        # A launch holds its project's row from its count to its commit; a launch that waits for its turn here has
        # no transaction open meanwhile.
        self._projects: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()

    def __call__(self, request: LaunchRequest) -> Launched:
        """Accept a request; see ``launch`` for what it raises."""
        if request.address or request.group_name:
            return self._alone(request)
        turn, kind = _Turn(request), request.kind
        with self._lock:
            waiting = self._waiting.get(kind)
            if waiting is None:
                self._waiting[kind] = []
            else:
                waiting.append(turn)
        if waiting is not None:
            turn.woken.wait()
        if turn.outcome is None:
            self._lead(kind, turn)
        if isinstance(turn.outcome, BaseException):
            raise turn.outcome
        assert turn.outcome is not None
        return turn.outcome

    def _lead(self, kind: LaunchRequest, leader: _Turn) -> None:
        turns = [leader]
        with self._lock:
            waiting, instances = self._waiting[kind], leader.request.max_count
            while waiting and len(turns) < MOST_REQUESTS:
                instances += waiting[0].request.max_count
                if instances > MOST_INSTANCES:
                    break
                turns.append(waiting.pop(0))
        try:
            self._run(turns)
        except BaseException as error:
            for turn in turns:
                turn.outcome = turn.outcome or error
        finally:
            with self._lock:
                following = self._waiting[kind].pop(0) if self._waiting[kind] else None
                if following is None:
                    del self._waiting[kind]
            for turn in turns:
                turn.woken.set()
            if following is not None:
                following.woken.set()

    def _run(self, turns: Sequence[_Turn]) -> None:
        requests = [t.request for t in turns]
        if len(turns) > 1:
            try:
                together = self._write(requests[0], lambda tx: launch_together(tx, requests))
            except Unavailable:
                raise
            except (CloudError, IntegrityError, Separately) as error:
                log.debug("launches that came together go one by one", requests=len(turns), reason=str(error))
            else:
                for turn, launched in zip(turns, together, strict=True):
                    turn.outcome = launched
                return
        for turn in turns:
            try:
                turn.outcome = self._alone(turn.request)
            except Exception as error:
                turn.outcome = error

    def _alone(self, request: LaunchRequest) -> Launched:
        return self._write(request, lambda tx: launch(tx, request))

    def _write(self, request: LaunchRequest, work: Callable[[Transaction], T]) -> T:
        with self._lock:
            turn = self._projects.setdefault(request.project_id, threading.Lock())
        has_turn = turn.acquire(timeout=_TURN_S)
        try:
            return self._cloud.write(work)
        finally:
            if has_turn:
                turn.release()
