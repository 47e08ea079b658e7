"""Sees every commit of the services: whether they could know by then what they wrote."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from controller.domain.messages import HostReported, Message
from controller.domain.states import DEADLINE_S, Event, State
from tests.simulation.database import SimulationDatabase
from tests.simulation.oracle import Failed, Oracle, failed_rows
from tests.simulation.simulator import Simulator, Task

Handler = Callable[[Sequence[Message]], object]

# What an instance history says of a state that a heartbeat has shown.
_SHOWN = ("seen in its host's heartbeat", "its host has no such guest running")
# A process may be held up for so long between its look at the clock and what it writes then.
_HELD_UP_S = 300


class CommitMonitor:
    """Two things that no row shows in the end: a late heartbeat that was believed, a deadline that was not over."""

    def __init__(self, simulator: Simulator, sim_database: SimulationDatabase, oracle: Oracle) -> None:
        self._simulator = simulator
        self._oracle = oracle
        self._sim_database = sim_database
        self.violations: list[str] = []
        self._in_hand: dict[Task, Mapping[str, int]] = {}
        self._in_time: dict[
            Task, set[str]
        ] = {}  # whose heartbeats an earlier transaction of this piece of work has seen
        self._heard: dict[str, int] = {}
        self._entered: dict[str, tuple[float, State]] = {}
        self._last_step = 0
        self._copy: tuple[dict[str, int], dict[str, tuple[float, State]], int] = ({}, {}, 0)

    def hearing(self, handler: Handler) -> Handler:
        """The same handler, its heartbeats known while it works."""

        def handle(messages: Sequence[Message]) -> None:
            task = self._simulator.current
            assert task is not None
            beats = sorted((m for m in messages if isinstance(m, HostReported)), key=lambda m: m.sequence)
            self._in_hand[task], self._in_time[task] = {m.host: m.sequence for m in beats}, set()
            try:
                handler(messages)
                self._heard |= {m.host: m.sequence for m in beats if m.host in self._in_time[task]}
            finally:
                del self._in_hand[task], self._in_time[task]

        return handle

    @contextmanager
    def commit(self, task: Task) -> Iterator[None]:
        """A transaction of this piece of code is committed."""
        newest = self._in_hand.get(task, {})
        late = {host for host, number in newest.items() if number <= self._heard.get(host, 0) and self._is_up(host)}
        late -= self._in_time.get(task, set())
        yield
        self._in_time.get(task, set()).update(newest.keys() - late)
        # A handler takes its heartbeats in several transactions: what this one did not take is heard with the last.
        rows = dict(self._sim_database.peek("SELECT id, heartbeat_sequence FROM hosts")) if newest else {}
        self._heard |= {h: number for h, number in newest.items() if h not in late and rows.get(h) == number}
        steps = self._sim_database.peek(
            "SELECT s.id, s.instance_id, s.event, s.state, s.detail, i.host_id FROM steps s"
            " JOIN instances i ON i.id = s.instance_id WHERE s.id > ? ORDER BY s.id",
            self._last_step,
        )
        failed: list[tuple[str, str, State, float]] = []
        for step, instance_id, event, state, detail, host in steps:
            self._last_step = step
            if host in late and detail in _SHOWN:
                self._violation(f"{instance_id[:8]} is {state}, as a late heartbeat of {host} shows it")
            if event == Event.EXPIRED:
                self._expires(instance_id)
            entered, before = self._entered.get(instance_id, (0.0, State.REQUESTED))
            if state == State.ERROR and before is not State.ERROR:
                failed.append((instance_id, event, before, entered))
            # A line of the history that leaves the state as it is does not begin its deadline anew.
            stays = instance_id in self._entered and before == state
            self._entered[instance_id] = (entered if stays else self._simulator.now, State(state))

        if failed:
            self._have_failed(failed)

    def copied(self) -> None:
        """A copy is made of the database: what is known of it now is kept with it."""
        self._copy = (dict(self._heard), dict(self._entered), self._last_step)

    def restored(self) -> None:
        """The copy is put back."""
        heard, entered, self._last_step = self._copy
        self._heard, self._entered = dict(heard), dict(entered)

    def _have_failed(self, failed: Sequence[tuple[str, str, State, float]]) -> None:
        rows = failed_rows(self._sim_database, [instance_id for instance_id, *_ in failed])
        told = []
        for instance_id, event, before, entered in failed:
            row = rows[instance_id]
            told.append(
                Failed(
                    id=instance_id,
                    event=event,
                    before=before,
                    entered=entered,
                    reason=row["reason"],
                    code=row["reason_code"],
                    network_id=row["network_id"],
                    shape=(row["vcpus"], row["memory_mib"], row["disk_gib"]),
                    reservation_id=row["reservation_id"],
                    needed=row["launch_index"] < row["min_count"],
                    group_id=row["group_id"],
                    wanted_ip=row["wanted_ip"],
                )
            )
        for violation in self._oracle.unjust_errors(told):
            self._violation(violation)

    def _expires(self, instance_id: str) -> None:
        since, state = self._entered[instance_id]
        if state is State.DELETING:
            return  # an overdue delete waits on: that it is overdue is only told
        lasted_s = self._simulator.now - since
        if lasted_s < DEADLINE_S[state] - _HELD_UP_S:
            self._violation(f"{instance_id[:8]} expires after {lasted_s:.0f} s of {state}")

    def _violation(self, text: str) -> None:
        self._simulator.note(f"BREACH {text}")
        self.violations.append(text)

    def _is_up(self, host: str) -> bool:
        return self._sim_database.peek("SELECT up FROM hosts WHERE id = ?", host) == [(1,)]
