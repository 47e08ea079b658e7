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
from tests.simulation.database import Laboratory, ids_of
from tests.simulation.disasters import Disasters
from tests.simulation.faults import Faults
from tests.simulation.hosts import Host, WatchedSite, with_failures
from tests.simulation.hub import Hub, Process
from tests.simulation.operators import Operators
from tests.simulation.oracle import Oracle
from tests.simulation.releases import NextRelease, OldRelease
from tests.simulation.services import ControlPlane
from tests.simulation.stories import Stories, Story
from tests.simulation.verdict import Judge
from tests.simulation.witness import Witness

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
    breaches: list[str] = field(default_factory=list)
    tail: list[str] = field(default_factory=list)
    about: str = ""

    @property
    def failed(self) -> bool:
        """Whether a promise was broken."""
        return bool(self.breaches)

    def __str__(self) -> str:
        """For a person: what was broken, how it came to that, how to see it again."""
        lines = [f"seed {self.seed} failed; faults: {self.about}", *self.tail]
        lines += [f"BREACH {breach}" for breach in self.breaches]
        return "\n".join([*lines, f"replay it with: python -m tests.simulation {self.seed}"])


class Site:
    """All processes and hosts of one seed."""

    def __init__(
        self,
        seed: int,
        laboratory: Laboratory,
        echo: Callable[[str], None] | None = None,
        told: Collection[Story] | None = None,
    ) -> None:
        self.seed = seed
        self._laboratory = laboratory
        random = Random(seed)
        self.hub = hub = Hub(random, Faults(random), echo)
        hub.faults.clock = lambda: hub.now
        self.stories = Stories(seed, told)
        laboratory.others_lock_leases = Story.LOCKS in self.stories
        self.oracle = Oracle(hub, laboratory)
        laboratory.begin(hub)
        self.broker = Broker(hub, laboratory.settings.bus)
        self.witness = Witness(hub, laboratory, self.oracle)
        laboratory.watch_commits(self.witness.commit)
        self.plane = ControlPlane(hub, self.broker, laboratory, ids_of(seed), self.witness.hearing)
        self.plane.make(random.randint(1, 2), random.randint(1, 2), random.randint(1, 2))
        self.clients = Clients(hub, self.plane, laboratory, self.stories, self.oracle)
        self.judge = Judge(hub, self.broker, self.clients, laboratory, self.oracle)
        for file in laboratory.folder.glob("journal-*"):
            file.unlink()
        for file in laboratory.folder.glob("guests.db*"):
            file.unlink()
        self.guests = WatchedSite(laboratory.folder / "guests.db", hub, self.judge.watch)
        compute = with_failures(laboratory.settings.compute, hub.faults.driver_failure_rate)
        names = [f"h{n}" for n in range(1, random.randint(2, 4))]
        self.hosts = [Host(n, hub, self.broker, self.guests, compute, laboratory.folder) for n in names]
        for host in self.hosts:
            host.process.skew_s = random.choice((0, 0, 3600, -3600, 5)) * random.random()
        self.judge.hosts, self.judge.guests = self.hosts, self.guests
        self.oracle.hosts, self.oracle.processes = self.hosts, lambda: self.processes
        if Story.MIXED in self.stories:
            self._mix_releases()
        self.operators = Operators(self)
        self.judge.repairs = lambda: self.operators.repairs
        self._copied_at: float | None = None

    @property
    def processes(self) -> list[Process]:
        """All of them, hosts' agents included."""
        return [*self.plane.apis, *self.plane.others, *(h.process for h in self.hosts)]

    def run(self) -> Outcome:
        """From the first start to the verdict."""
        hub = self.hub
        trouble_s = hub.random.uniform(*_TROUBLE_S)
        for process in self.processes:
            hub.at(hub.random.uniform(0, 3), lambda p=process: hub.start(p))  # type: ignore[misc]
        self.clients.plan(hub.random.randint(5, 40), trouble_s)
        Disasters(self).plan(trouble_s)
        self.operators.plan(trouble_s)
        hub.run_until(trouble_s)
        self._make_peace()
        self._wait_for_quiet()
        breaches = [*self.witness.breaches, *self.judge.verdict()]
        return Outcome(
            seed=self.seed,
            digest=hub.digest,
            steps=hub.steps,
            faults=hub.faults.counts,
            accepted=self.clients.accepted,
            ended=self.judge.ended(),
            virtual_s=hub.now,
            breaches=breaches,
            tail=list(hub.tail)[-60:] if breaches else [],
            about=f"{hub.faults}; {self.stories}",
        )

    def database_down_for(self, seconds: float) -> None:
        """The database cannot be reached for so long."""
        self.oracle.outages.append((self.hub.now, self.hub.now + seconds))
        self._laboratory.down_until(self.hub.now + seconds)

    def _mix_releases(self) -> None:
        """Some services are of 0.1, some agents of the next release."""
        random = self.stories.random
        self._laboratory.was_made_by_0_1()
        # One controller is of this release. An agent of 0.1 would not wait to be accepted as this release's does.
        for process in [p for p in self.plane.others if p is not self.plane.controllers[0]]:
            process.release = OldRelease() if random.random() < _SHARE_OLD else process.release
        for host in self.hosts:
            host.process.release = NextRelease(random) if random.random() < _SHARE_NEXT else host.process.release

    @property
    def pinned_network(self) -> str:
        """The network whose leases are imported."""
        return self._laboratory.pinned_network

    def peek(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Look into the database from outside."""
        return self._laboratory.peek(statement, *values)

    def copy_database(self) -> None:
        """Take a backup of the database."""
        self.hub.note("STORY the database is copied")
        self._laboratory.copy()
        self._copied_at = self.hub.now
        self.witness.copied()

    def restore_database(self) -> None:
        """Stop the cloud, put the backup back, start the cloud."""
        if self._copied_at is None:
            return
        self.hub.note("STORY the database is restored")
        self.clients.before_restore()
        for process in [*self.plane.apis, *self.plane.others]:
            self.hub.kill(process)
        self._laboratory.restore()
        self.witness.restored()
        self.clients.restored(self._copied_at)
        self.oracle.restored_at = self.hub.now

    def close(self) -> None:
        """Close what is open."""
        for host in self.hosts:
            host.close()
        self.guests.close()

    def _make_peace(self) -> None:
        """No more faults: everything is there and stays there."""
        hub = self.hub
        hub.faults.calm = True
        for process in self.processes:
            process.release.calm = True
        hub.note("--- peace ---")
        self._laboratory.down_until(0)
        self.broker.come_up()
        away = {h.process for h in self.hosts if h.away}
        for process in self.processes:
            process.skew_s = process.frozen_until = 0.0
            if process not in away:
                process.cut_off_until = 0.0
                hub.start(process)
        self.broker.pump_all()

    def _wait_for_quiet(self) -> None:
        hub = self.hub
        end, quiet = hub.now + _PATIENCE_S, 0
        while quiet < _QUIET_LOOKS and hub.now < end:
            hub.run_until(hub.now + _LOOK_EVERY_S)
            self.operators.look_after_hosts()
            self.broker.abandoned = {host_queue(h.name) for h in self.hosts if h.lost}
            self.broker.abandoned |= {host_queue(f"{h.hardware}-new") for h in self.hosts}
            quiet = quiet + 1 if not [*self.judge.open(), *self.operators.waiting] else 0


def run(
    seed: int,
    laboratory: Laboratory,
    echo: Callable[[str], None] | None = None,
    told: Collection[Story] | None = None,
) -> Outcome:
    """One seed, from the first start to the verdict; ``told``: with these stories instead of those that it draws."""
    with _logs() as logs:
        site = Site(seed, laboratory, echo, told)
        logs.append(site.judge.heard)
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
