"""Those who ask: launches, stops, starts, reboots and terminations at any time, sent again until there is an answer."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from controller.domain.errors import CloudError, Unavailable
from controller.operations import instances
from controller.operations.cloud import Transaction
from controller.operations.instances import LaunchRequest
from tests.simulation.database import Laboratory
from tests.simulation.hub import Hub, Process
from tests.simulation.services import ControlPlane

T = TypeVar("T")

_TYPES = ("p1.tiny", "p1.tiny", "t2.nano", "t2.micro", "t2.micro", "m5.large")
_WISHES = {
    "stop": instances.stop,
    "start": instances.start,
    "reboot": instances.reboot,
    "terminate": instances.terminate,
}
_SENSIBLE: Mapping[str, Sequence[str]] = {
    "ACTIVE": ("stop", "stop", "reboot", "terminate"),
    "STOPPED": ("start", "start", "start", "terminate"),
}


@dataclass(eq=False)
class Launch:
    """One request for instances, and every answer to it."""

    request: LaunchRequest
    answers: list[tuple[str, ...]] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)


@dataclass(eq=False)
class Wish:
    """One request about instances that are there; ``accepted`` once it was answered with success."""

    kind: str
    ids: tuple[str, ...]
    accepted: bool = False


class Clients:
    """What is asked for, and what was answered."""

    def __init__(self, hub: Hub, plane: ControlPlane, laboratory: Laboratory) -> None:
        self._hub = hub
        self._plane = plane
        self._laboratory = laboratory
        self._who = (laboratory.project_id, laboratory.user_id, laboratory.image_id)
        self.launches: list[Launch] = []
        self.wishes: list[Wish] = []
        # How often a wish may have reached an instance, whatever was answered.
        self.attempts: Counter[tuple[str, str]] = Counter()
        self.unanswered = 0

    @property
    def accepted(self) -> int:
        """Requests that were answered with success."""
        return sum(bool(x.answers) for x in self.launches) + sum(w.accepted for w in self.wishes)

    @property
    def known(self) -> list[str]:
        """The instances that clients have heard of."""
        return list(dict.fromkeys(i for x in self.launches for answer in x.answers for i in answer))

    def plan(self, requests: int, within_s: float) -> None:
        """Ask so many things at random times."""
        for n in range(requests):
            self._hub.at(self._hub.random.uniform(0, within_s), lambda n=n: self._ask(n))  # type: ignore[misc]

    def _ask(self, number: int) -> None:
        random = self._hub.random
        known = self.known
        kind = random.choices(("launch", "again", "wish"), weights=(35, 10, 55))[0]
        if kind == "again" and self.launches:
            launch = random.choice(self.launches)
            if launch.request.client_token:
                self._send_launch(launch)
        elif kind == "wish" and known:
            ids = random.sample(known, random.choice((1, 1, 1, min(3, len(known)))))
            wish = Wish(random.choice(self._sensible(ids[0])), tuple(ids))
            self.wishes.append(wish)
            self._send_wish(wish)
        else:
            self._launch(number)

    def _sensible(self, instance_id: str) -> Sequence[str]:
        """What one would ask of an instance in its state; and now and then anything."""
        state = self._laboratory.peek("SELECT state FROM instances WHERE id = ?", instance_id)[0][0]
        if self._hub.random.random() < 0.15:
            return tuple(_WISHES)
        return _SENSIBLE.get(state, ("terminate",) if self._hub.random.random() < 0.2 else tuple(_WISHES))

    def _launch(self, number: int) -> None:
        random = self._hub.random
        project_id, user_id, image_id = self._who
        least = random.choice((1, 1, 1, 2, 3))
        token = f"token-{number}" if random.random() < 0.8 else ""
        launch = Launch(
            LaunchRequest(
                project_id=project_id,
                user_id=user_id,
                image_id=image_id,
                instance_type=random.choice(_TYPES),
                min_count=least,
                max_count=least + random.choice((0, 0, 1, 4)),
                client_token=token,
            )
        )
        self.launches.append(launch)
        for _ in range(random.choice((1, 1, 1, 3)) if token else 1):
            self._send_launch(launch)

    def _send_launch(self, launch: Launch) -> None:
        def work(tx: Transaction) -> tuple[str, ...]:
            return tuple(i.id for i in instances.launch(tx, launch.request).instances)

        def answered(ids: tuple[str, ...]) -> None:
            launch.answers.append(ids)
            self._hub.note(f"launch accepted: {' '.join(i[:8] for i in ids)}")

        again = bool(launch.request.client_token)
        self._send("launch", work, answered, launch.refusals.append, again=again)

    def _send_wish(self, wish: Wish) -> None:
        def work(tx: Transaction) -> None:
            self.attempts.update((wish.kind, i) for i in wish.ids)
            _WISHES[wish.kind](tx, self._who[0], wish.ids)

        def answered(_: None) -> None:
            wish.accepted = True
            self._hub.note(f"{wish.kind} accepted: {' '.join(i[:8] for i in wish.ids)}")

        self._send(wish.kind, work, answered, lambda _: None, again=wish.kind == "terminate")

    def _send(
        self,
        what: str,
        work: Callable[[Transaction], T],
        answered: Callable[[T], None],
        refused: Callable[[str], None],
        *,
        again: bool,
    ) -> None:
        """Send to one of the doors. Without an answer it is sent again, where twice is once."""
        self.unanswered += 1
        self._hub.at(self._hub.random.expovariate(20), lambda: self._try(what, work, answered, refused, again))

    def _try(
        self,
        what: str,
        work: Callable[[Transaction], T],
        answered: Callable[[T], None],
        refused: Callable[[str], None],
        again: bool,
    ) -> None:
        door = self._open_door()
        outcome = self._carry_out(door, work) if door is not None else []
        if not outcome or isinstance(outcome[0], Unavailable):
            if again or door is None:
                pause_s = self._hub.random.uniform(0.5, 5)
                self._hub.at(pause_s, lambda: self._try(what, work, answered, refused, again))
                return
            self._hub.note(f"{what}: nobody knows")
        elif isinstance(outcome[0], CloudError):
            self._hub.note(f"{what} refused: {outcome[0]}")
            refused(outcome[0].code)
        elif isinstance(outcome[0], Exception):
            self._hub.surprise(outcome[0])
        else:
            answered(outcome[0])
        self.unanswered -= 1

    def _carry_out(self, door: Process, work: Callable[[Transaction], T]) -> list[T | Exception]:
        """The answer or the error; neither where the door's process has ended under it."""
        outcome: list[T | Exception] = []

        def carry_out() -> None:
            try:
                outcome.append(self._plane.cloud(door).write(work))
            except Exception as error:
                outcome.append(error)

        ended, _ = self._hub.run(door, carry_out)
        return outcome if ended else []

    def _open_door(self) -> Process | None:
        open_ = [p for p in self._plane.apis if p.alive and p.frozen_until <= self._hub.now]
        return self._hub.random.choice(open_) if open_ else None
