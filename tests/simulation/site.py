"""One seed's site: made, troubled, left in peace until nothing moves any more, and judged."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import structlog

from controller.domain.messages import host_queue
from tests.simulation.bus import Broker
from tests.simulation.clients import Clients
from tests.simulation.commit_monitor import CommitMonitor
from tests.simulation.database import SimulationDatabase, ids_of
from tests.simulation.disasters import Disasters
from tests.simulation.faults import Faults
from tests.simulation.hosts import Host, WatchedSite, with_failures
from tests.simulation.invariants import InvariantChecker
from tests.simulation.operators import Operators
from tests.simulation.oracle import Oracle
from tests.simulation.releases import NextRelease, OldRelease
from tests.simulation.scenarios import Scenario, Scenarios
from tests.simulation.services import ControlPlane
from tests.simulation.simulator import Process, Simulator

_TROUBLE_S = (40, 200)
_PATIENCE_S = 3600
_LOOK_EVERY_S = 60
# What is settled stays so for as long as a heartbeat may still change something.
_QUIET_LOOKS = 2
_SHARE_OLD = _SHARE_NEXT = 0.35


@dataclass
class Outcome:
    """What became of a seed. ``accepted``, ``ended``: requests, and those of them that came to their end."""

    seed: int
    digest: str
    steps: int
    faults: Counter[str]
    accepted: int
    ended: int
    virtual_s: float
    violations: list[str] = field(default_factory=list)
    tail: list[str] = field(default_factory=list)
    about: str = ""

    @property
    def failed(self) -> bool:
        """Whether a promise was broken."""
        return bool(self.violations)

    def __str__(self) -> str:
        """For a person: what was broken, how it came to that, how to see it again."""
        lines = [f"seed {self.seed} failed; faults: {self.about}", *self.tail]
        lines += [f"BREACH {violation}" for violation in self.violations]
        return "\n".join([*lines, f"replay it with: python -m tests.simulation {self.seed}"])


class Site:
    """All processes and hosts of one seed."""

    def __init__(
        self,
        seed: int,
        sim_database: SimulationDatabase,
        echo: Callable[[str], None] | None = None,
        scenarios: Collection[Scenario] | None = None,
    ) -> None:
        self.seed = seed
        self._sim_database = sim_database
        random = Random(seed)
        self.simulator = simulator = Simulator(random, Faults(random), echo)
        simulator.faults.clock = lambda: simulator.now
        self.scenarios = Scenarios(seed, scenarios)
        sim_database.others_lock_leases = Scenario.LOCKS in self.scenarios
        self.oracle = Oracle(simulator, sim_database)
        sim_database.begin(simulator)
        self.broker = Broker(simulator, sim_database.settings.bus)
        self.commit_monitor = CommitMonitor(simulator, sim_database, self.oracle)
        sim_database.watch_commits(self.commit_monitor.commit)
        self.plane = ControlPlane(simulator, self.broker, sim_database, ids_of(seed), self.commit_monitor.hearing)
        self.plane.make(random.randint(1, 2), random.randint(1, 2), random.randint(1, 2))
        self.clients = Clients(simulator, self.plane, sim_database, self.scenarios, self.oracle)
        self.checker = InvariantChecker(simulator, self.broker, self.clients, sim_database, self.oracle)
        for file in sim_database.folder.glob("journal-*"):
            file.unlink()
        for file in sim_database.folder.glob("guests.db*"):
            file.unlink()
        self.guests = WatchedSite(sim_database.folder / "guests.db", simulator, self.checker.watch)
        compute = with_failures(sim_database.settings.compute, simulator.faults.driver_failure_rate)
        names = [f"h{n}" for n in range(1, random.randint(2, 4))]
        self.hosts = [Host(n, simulator, self.broker, self.guests, compute, sim_database.folder) for n in names]
        for host in self.hosts:
            host.process.skew_s = random.choice((0, 0, 3600, -3600, 5)) * random.random()
        self.checker.hosts, self.checker.guests = self.hosts, self.guests
        self.oracle.hosts, self.oracle.processes = self.hosts, lambda: self.processes
        if Scenario.MIXED in self.scenarios:
            self._mix_releases()
        self.operators = Operators(self)
        self.checker.repairs = lambda: self.operators.repairs
        self._copied_at: float | None = None

    @property
    def processes(self) -> list[Process]:
        """All of them, hosts' agents included."""
        return [*self.plane.apis, *self.plane.others, *(h.process for h in self.hosts)]

    def run(self) -> Outcome:
        """From the first start to the verdict."""
        simulator = self.simulator
        trouble_s = simulator.random.uniform(*_TROUBLE_S)
        for process in self.processes:
            simulator.at(simulator.random.uniform(0, 3), lambda p=process: simulator.start(p))  # type: ignore[misc]
        self.clients.plan(simulator.random.randint(5, 40), trouble_s)
        Disasters(self).plan(trouble_s)
        self.operators.plan(trouble_s)
        simulator.run_until(trouble_s)
        self._make_peace()
        self._wait_for_quiet()
        violations = [*self.commit_monitor.violations, *self.checker.verdict()]
        return Outcome(
            seed=self.seed,
            digest=simulator.digest,
            steps=simulator.steps,
            faults=simulator.faults.counts,
            accepted=self.clients.accepted,
            ended=self.checker.ended(),
            virtual_s=simulator.now,
            violations=violations,
            tail=list(simulator.tail)[-60:] if violations else [],
            about=f"{simulator.faults}; {self.scenarios}",
        )

    def database_down_for(self, seconds: float) -> None:
        """The database cannot be reached for so long."""
        self.oracle.outages.append((self.simulator.now, self.simulator.now + seconds))
        self._sim_database.down_until(self.simulator.now + seconds)

    def _mix_releases(self) -> None:
        """Some services are of 0.1, some agents of the next release."""
        random = self.scenarios.random
        self._sim_database.was_made_by_0_1()
        # One controller is of this release. An agent of 0.1 would not wait to be accepted as this release's does.
        for process in [p for p in self.plane.others if p is not self.plane.controllers[0]]:
            process.release = OldRelease() if random.random() < _SHARE_OLD else process.release
        for host in self.hosts:
            host.process.release = NextRelease(random) if random.random() < _SHARE_NEXT else host.process.release

    @property
    def pinned_network(self) -> str:
        """The network whose leases are imported."""
        return self._sim_database.pinned_network

    def peek(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Look into the database from outside."""
        return self._sim_database.peek(statement, *values)

    def copy_database(self) -> None:
        """Take a backup of the database."""
        self.simulator.note("SCENARIO the database is copied")
        self._sim_database.copy()
        self._copied_at = self.simulator.now
        self.commit_monitor.copied()

    def restore_database(self) -> None:
        """Stop the cloud, put the backup back, start the cloud."""
        if self._copied_at is None:
            return
        self.simulator.note("SCENARIO the database is restored")
        self.clients.before_restore()
        for process in [*self.plane.apis, *self.plane.others]:
            self.simulator.kill(process)
        self._sim_database.restore()
        self.commit_monitor.restored()
        self.clients.restored(self._copied_at)
        self.oracle.restored_at = self.simulator.now

    def close(self) -> None:
        """Close what is open."""
        for host in self.hosts:
            host.close()
        self.guests.close()

    def _make_peace(self) -> None:
        """No more faults: everything is there and stays there."""
        simulator = self.simulator
        simulator.faults.calm = True
        for process in self.processes:
            process.release.calm = True
        simulator.note("--- peace ---")
        self._sim_database.down_until(0)
        self.broker.come_up()
        away = {h.process for h in self.hosts if h.away}
        for process in self.processes:
            process.skew_s = process.frozen_until = 0.0
            if process not in away:
                process.cut_off_until = 0.0
                simulator.start(process)
        self.broker.pump_all()

    def _wait_for_quiet(self) -> None:
        simulator = self.simulator
        end, quiet = simulator.now + _PATIENCE_S, 0
        while quiet < _QUIET_LOOKS and simulator.now < end:
            simulator.run_until(simulator.now + _LOOK_EVERY_S)
            self.operators.look_after_hosts()
            self.broker.abandoned = {host_queue(h.name) for h in self.hosts if h.lost}
            self.broker.abandoned |= {host_queue(f"{h.hardware}-new") for h in self.hosts}
            quiet = quiet + 1 if not [*self.checker.open(), *self.operators.waiting] else 0


def run(
    seed: int,
    sim_database: SimulationDatabase,
    echo: Callable[[str], None] | None = None,
    scenarios: Collection[Scenario] | None = None,
) -> Outcome:
    """One seed, from the first start to the verdict; ``scenarios``: these instead of those that it draws."""
    with _logs() as logs:
        site = Site(seed, sim_database, echo, scenarios)
        logs.append(site.checker.heard)
        try:
            return site.run()
        finally:
            site.close()


@contextmanager
def _logs() -> Iterator[list[Callable[[Any], None]]]:
    """What the services log is heard here, and printed nowhere."""
    listeners: list[Callable[[Any], None]] = []

    def hear(_logger: Any, method: str, line: Any) -> Any:
        for listener in listeners:
            listener({**line, "log_level": method})
        raise structlog.DropEvent

    processors = structlog.get_config()["processors"]
    before = list(processors)
    try:
        processors[:] = [hear]
        structlog.configure(processors=processors)
        yield listeners
    finally:
        processors[:] = before
        structlog.configure(processors=processors)
