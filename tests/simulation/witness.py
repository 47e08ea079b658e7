"""Sees every commit of the services: whether they could know by then what they wrote."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from controller.domain.messages import HostReported, Message
from controller.domain.states import DEADLINE_S, Event, State
from tests.simulation.database import Laboratory
from tests.simulation.hub import Hub, Task

Handler = Callable[[Sequence[Message]], object]

# What a story says of a state that a heartbeat has shown.
_SHOWN = ("seen in its host's heartbeat", "its host has no such guest running")
# A process may be held up for so long between its look at the clock and what it writes then.
_HELD_UP_S = 300


class Witness:
    """Two things that no row shows in the end: a late heartbeat that was believed, a deadline that was not over."""

    def __init__(self, hub: Hub, laboratory: Laboratory) -> None:
        self._hub = hub
        self._laboratory = laboratory
        self.breaches: list[str] = []
        self._in_hand: dict[Task, Mapping[str, int]] = {}
        self._heard: dict[str, int] = {}
        self._entered: dict[str, tuple[float, State]] = {}
        self._last_step = 0

    def hearing(self, handler: Handler) -> Handler:
        """The same handler, its heartbeats known while it works."""

        def handle(messages: Sequence[Message]) -> None:
            task = self._hub.current
            assert task is not None
            beats = sorted((m for m in messages if isinstance(m, HostReported)), key=lambda m: m.sequence)
            self._in_hand[task] = {m.host: m.sequence for m in beats}
            try:
                handler(messages)
            finally:
                del self._in_hand[task]

        return handle

    @contextmanager
    def commit(self, task: Task) -> Iterator[None]:
        """A transaction of this piece of code is committed."""
        newest = self._in_hand.get(task, {})
        late = {host for host, number in newest.items() if number <= self._heard.get(host, 0) and self._is_up(host)}
        yield
        self._heard |= {host: number for host, number in newest.items() if host not in late}
        steps = self._laboratory.peek(
            "SELECT s.id, s.instance_id, s.event, s.state, s.detail, i.host_id FROM steps s"
            " JOIN instances i ON i.id = s.instance_id WHERE s.id > ? ORDER BY s.id",
            self._last_step,
        )
        for step, instance_id, event, state, detail, host in steps:
            self._last_step = step
            if host in late and detail in _SHOWN:
                self._breach(f"{instance_id[:8]} is {state}, as a late heartbeat of {host} shows it")
            if event == Event.EXPIRED:
                self._expires(instance_id)
            self._entered[instance_id] = (self._hub.now, State(state))

    def _expires(self, instance_id: str) -> None:
        since, state = self._entered[instance_id]
        lasted_s = self._hub.now - since
        if lasted_s < DEADLINE_S[state] - _HELD_UP_S:
            self._breach(f"{instance_id[:8]} expires after {lasted_s:.0f} s of {state}")

    def _breach(self, text: str) -> None:
        self._hub.note(f"BREACH {text}")
        self.breaches.append(text)

    def _is_up(self, host: str) -> bool:
        return self._laboratory.peek("SELECT up FROM hosts WHERE id = ?", host) == [(1,)]
