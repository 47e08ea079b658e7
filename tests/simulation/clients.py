"""Those who ask: launches, stops, starts, reboots and terminations at any time, sent again until there is an answer."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from controller.domain.errors import CloudError, Unavailable
from controller.operations.cloud import Transaction
from controller.operations.instances import actions
from controller.operations.instances import launch as launching
from controller.operations.instances.launch_requests import LaunchRequest
from tests.simulation.database import SimulationDatabase
from tests.simulation.oracle import Oracle
from tests.simulation.scenarios import Scenario, Scenarios
from tests.simulation.services import ControlPlane
from tests.simulation.simulator import Process, Simulator

T = TypeVar("T")

_TYPES = ("p1.tiny", "p1.tiny", "t2.nano", "t2.micro", "t2.micro", "m5.large")
_ACTIONS = {
    "stop": actions.stop,
    "start": actions.start,
    "reboot": actions.reboot,
    "terminate": actions.terminate,
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
    lost: bool = False  # with a database that was replaced by an older copy


@dataclass(eq=False)
class Action:
    """One request about instances that are there; ``accepted`` once it was answered with success."""

    kind: str
    ids: tuple[str, ...]
    accepted: bool = False
    accepted_at: float = 0.0


class Clients:
    """What is asked for, and what was answered."""

    def __init__(
        self,
        simulator: Simulator,
        plane: ControlPlane,
        sim_database: SimulationDatabase,
        scenarios: Scenarios,
        oracle: Oracle,
    ) -> None:
        self._simulator = simulator
        self._stories = scenarios
        self._oracle = oracle
        self._plane = plane
        self._sim_database = sim_database
        self._who = (sim_database.project_id, sim_database.user_id, sim_database.image_id)
        self.launches: list[Launch] = []
        self.actions: list[Action] = []
        # How often an action may have reached an instance, whatever was answered.
        self.attempts: Counter[tuple[str, str]] = Counter()
        self.unanswered = 0
        self._forgotten: set[str] = set()  # what is to end itself, by rows that are replaced
        self.unjust: list[str] = []

    @property
    def accepted(self) -> int:
        """Requests that were answered with success."""
        return sum(bool(x.answers) for x in self.launches) + sum(w.accepted for w in self.actions)

    @property
    def known(self) -> list[str]:
        """The instances that clients have heard of."""
        return list(dict.fromkeys(i for x in self.launches for answer in x.answers for i in answer))

    def ends_itself(self, instance_id: str) -> bool:
        """Whether it is to be terminated when it powers itself off."""
        # Its launch may have had no answer.
        return instance_id in self._forgotten or self._sim_database.peek(
            "SELECT shutdown_behavior FROM instances WHERE id = ?", instance_id
        ) == [("terminate",)]

    def before_restore(self) -> None:
        """Remember what the rows say and their copy may not: commands made by them are still under way."""
        ending = self._sim_database.peek("SELECT id FROM instances WHERE shutdown_behavior = ?", "terminate")
        self._forgotten |= {i for (i,) in ending}

    def plan(self, requests: int, within_s: float) -> None:
        """Ask so many things at random times."""
        for n in range(requests):
            self._simulator.at(self._simulator.random.uniform(0, within_s), lambda n=n: self._ask(n))  # type: ignore[misc]
        if Scenario.SHORTAGE in self._stories:
            for _ in range(self._stories.random.randint(1, 2)):
                self.plan_singles(self._stories.random.uniform(25, within_s), self._stories.random.randint(8, 20))

    def terminate_some_of(self, host: str) -> None:
        """Terminate what is there on this host, some of it."""
        there = [i for (i,) in self._sim_database.peek("SELECT id FROM instances WHERE host_id = ? ORDER BY id", host)]
        for instance_id in there[: self._stories.random.randint(1, 4)]:
            action = Action("terminate", (instance_id,))
            self.actions.append(action)
            self._send_action(action)

    def restored(self, copied_at: float) -> None:
        """The database is as it was then: what was accepted since is not known any more."""
        there = {row[0] for row in self._sim_database.peek("SELECT id FROM instances")}
        for launch in self.launches:
            if any(i not in there for answer in launch.answers for i in answer):
                launch.answers.clear()
                launch.lost = True
        for action in self.actions:
            action.accepted = action.accepted and action.accepted_at < copied_at

    def plan_singles(self, at: float, count: int) -> None:
        """So many single requests at once, in the small network."""
        for n in range(count):
            number = 1000 * (len(self.launches) + 1) + n
            when = at + self._stories.random.uniform(0, 0.3)
            self._simulator.at(when, lambda n=number: self._launch(n, single=True))  # type: ignore[misc]

    def _ask(self, number: int) -> None:
        random = self._simulator.random
        known = self.known
        kind = random.choices(("launch", "again", "action"), weights=(35, 10, 55))[0]
        if kind == "again" and self.launches:
            launch = random.choice(self.launches)
            if launch.request.client_token:
                self._send_launch(launch)
        elif kind == "action" and known:
            ids = random.sample(known, random.choice((1, 1, 1, min(3, len(known)))))
            action = Action(random.choice(self._sensible(ids[0])), tuple(ids))
            self.actions.append(action)
            self._send_action(action)
        else:
            self._launch(number)

    def _sensible(self, instance_id: str) -> Sequence[str]:
        """What one would ask of an instance in its state; and now and then anything."""
        states = self._sim_database.peek("SELECT state FROM instances WHERE id = ?", instance_id)
        state = states[0][0] if states else ""
        if self._simulator.random.random() < 0.15:
            return tuple(_ACTIONS)
        return _SENSIBLE.get(state, ("terminate",) if self._simulator.random.random() < 0.2 else tuple(_ACTIONS))

    def _launch(self, number: int, *, single: bool = False) -> None:
        random = self._simulator.random
        project_id, user_id, image_id = self._who
        least = 1 if single else random.choice((1, 1, 1, 2, 3))
        network_id = self._sim_database.small_network if single else self._network()
        ends = Scenario.EARLY_OFF in self._stories
        groups = self._sim_database.groups if Scenario.GROUPS in self._stories and not single else ()
        token = f"token-{number}" if random.random() < 0.8 else ""
        launch = Launch(
            LaunchRequest(
                project_id=project_id,
                user_id=user_id,
                image_id=image_id,
                instance_type="p1.tiny" if single else random.choice(_TYPES),
                min_count=least,
                max_count=least if single else least + random.choice((0, 0, 1, 4)),
                client_token=token,
                network_id=network_id,
                group_name=random.choice(("", *groups)) if groups else "",
                shutdown_behavior=random.choice(("", "stop", "terminate")) if ends else "",
            )
        )
        self.launches.append(launch)
        for _ in range(random.choice((1, 1, 1, 3)) if token else 1):
            self._send_launch(launch)

    def _network(self) -> str:
        """The default one, or one of those of this seed's scenarios."""
        choice = [""]
        if Scenario.SHORTAGE in self._stories or Scenario.REMOVED in self._stories:
            choice += [self._sim_database.small_network] * 2
        if Scenario.PINNED in self._stories:
            choice += [self._sim_database.pinned_network] * 2
        return self._simulator.random.choice(choice) if len(choice) > 1 else ""

    def _send_launch(self, launch: Launch) -> None:
        def work(tx: Transaction) -> tuple[str, ...]:
            return tuple(i.id for i in launching.launch(tx, launch.request).instances)

        def answered(ids: tuple[str, ...]) -> None:
            if launch.lost:
                launch.answers.clear()  # it was launched anew
                launch.lost = False
            launch.answers.append(ids)
            self._simulator.note(f"launch accepted: {' '.join(i[:8] for i in ids)}")

        def refused(code: str) -> None:
            launch.refusals.append(code)
            _, *shape = self._sim_database.peek(
                "SELECT name, vcpus, memory_mib, disk_gib FROM instance_types WHERE name = ?",
                launch.request.instance_type,
            )[0]
            size = (shape[0], shape[1], shape[2])
            if why := self._oracle.unjust_refusal(code, launch.request.network_id, size, launch.request.min_count):
                self.unjust.append(f"a launch of {launch.request.min_count} is refused ({code}), but {why}")

        again = bool(launch.request.client_token)
        self._send("launch", work, answered, refused, again=again)

    def _send_action(self, action: Action) -> None:
        def work(tx: Transaction) -> None:
            self.attempts.update((action.kind, i) for i in action.ids)
            _ACTIONS[action.kind](tx, self._who[0], action.ids)

        def answered(_: None) -> None:
            action.accepted, action.accepted_at = True, self._simulator.now
            self._simulator.note(f"{action.kind} accepted: {' '.join(i[:8] for i in action.ids)}")

        self._send(action.kind, work, answered, lambda _: None, again=action.kind == "terminate")

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
        self._simulator.at(
            self._simulator.random.expovariate(20), lambda: self._try(what, work, answered, refused, again)
        )

    def _try(
        self,
        what: str,
        work: Callable[[Transaction], T],
        answered: Callable[[T], None],
        refused: Callable[[str], None],
        again: bool,
    ) -> None:
        door = self._open_door()
        outcome = (
            carry_out(self._simulator, door, lambda: self._plane.cloud(door).write(work)) if door is not None else []
        )
        if not outcome or isinstance(outcome[0], Unavailable):
            if again or door is None:
                pause_s = self._simulator.random.uniform(0.5, 5)
                self._simulator.at(pause_s, lambda: self._try(what, work, answered, refused, again))
                return
            self._simulator.note(f"{what}: not known")
        elif isinstance(outcome[0], CloudError):
            self._simulator.note(f"{what} refused: {outcome[0]}")
            refused(outcome[0].code)
        elif isinstance(outcome[0], Exception):
            self._simulator.surprise(outcome[0])
        else:
            answered(outcome[0])
        self.unanswered -= 1

    def _open_door(self) -> Process | None:
        open_ = [p for p in self._plane.apis if p.alive and p.frozen_until <= self._simulator.now]
        return self._simulator.random.choice(open_) if open_ else None


def carry_out(simulator: Simulator, process: Process, work: Callable[[], T]) -> list[T | Exception]:
    """The answer or the error; neither where the process has ended under it."""
    outcome: list[T | Exception] = []

    def guarded() -> None:
        try:
            outcome.append(work())
        except Exception as error:
            outcome.append(error)

    ended, _ = simulator.run(process, guarded)
    return outcome if ended else []
