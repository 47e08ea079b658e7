"""What the operators of the site do: leases imported, hosts removed and renamed, a backup put back, repairs."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from controller.domain.errors import CloudError, HostNotFound
from controller.domain.lease_file import LeaseFile, LeaseRow
from controller.operations.audit.run import AuditOptions, run_audit
from controller.operations.cloud import Transaction
from controller.operations.hosts.force_removal import force_remove
from controller.operations.networks.pinned_leases import import_leases
from tests.simulation.clients import carry_out
from tests.simulation.hosts import Host
from tests.simulation.scenarios import Scenario
from tests.simulation.simulator import Process

if TYPE_CHECKING:
    from tests.simulation.site import Site

_LEASES_OF_A_HOST = 4
_EARLY_OFF_SHARE = 0.4
_SILENCE_S = (700, 1400)
_REPAIR = AuditOptions(repair=True, settle_s=3.0, timeout_s=5.0)


class Operators:
    """Lets a seed's scenarios happen; ``waiting`` is what they have still to do."""

    def __init__(self, site: "Site") -> None:
        self._site = site
        self._simulator = site.simulator
        self._random = site.scenarios.random
        self._process = Process("operator", lambda _: None)
        self._under_way = 0
        self.repairs = 0

    @property
    def waiting(self) -> list[str]:
        """What is still to be done."""
        return ["operators"] * bool(self._under_way)

    def plan(self, within_s: float) -> None:
        """Each scenario at its time; hosts are heard of after some seconds."""
        simulator, random, scenarios = self._simulator, self._random, self._site.scenarios
        simulator.start(self._process)
        hosts = random.sample(self._site.hosts, len(self._site.hosts))
        if Scenario.PINNED in scenarios:
            self._later(random.uniform(25, 40), self._import_leases)
        if Scenario.REMOVED in scenarios and Scenario.PINNED not in scenarios:
            self._later(random.uniform(10, within_s), lambda: self._remove(hosts[0]))
        elif Scenario.SILENCE in scenarios:
            self._later(random.uniform(10, within_s), lambda: self._fall_silent(hosts[0]))
        if Scenario.RENAMED in scenarios:
            self._later(random.uniform(10, within_s), lambda: self._rename(hosts[-1]))
        if Scenario.RESTORED in scenarios:
            copied_at = random.uniform(5, within_s)
            self._later(copied_at, self._site.copy_database)
            self._later(copied_at + random.uniform(5, 100), self._site.restore_database)
        if Scenario.REPAIR in scenarios:
            for _ in range(random.randint(1, 3)):
                self._later(random.uniform(30, within_s + 60), self._repair)
        for host in hosts if Scenario.EARLY_OFF in scenarios else ():
            host.early_off_share = _EARLY_OFF_SHARE

    def look_after_hosts(self) -> None:
        """What is called by no machine's name (any more) and is down is removed by force."""
        names = {h.name for h in self._site.hosts if not h.lost}
        down = self._site.peek("SELECT id FROM hosts WHERE NOT up")
        for (name,) in down:
            if name not in names and not self._under_way:
                self._later(0, lambda n=name: self._give_up(n, lambda: None))  # type: ignore[misc]

    # --- scenarios ---

    def _import_leases(self) -> None:
        """Some leases for each host, some of them for two."""
        names = [h.hardware for h in self._site.hosts]
        rows = []
        for n in range(_LEASES_OF_A_HOST * len(names)):
            pins = self._random.sample(names, min(len(names), self._random.choice((1, 1, 2))))
            rows.append(LeaseRow(0, f"10.78.0.{n + 10}", f"02:00:00:00:00:{n:02x}", "", tuple(sorted(pins))))
        network_id = self._site.pinned_network
        self._until_done("leases imported", lambda tx: import_leases(tx, network_id, LeaseFile(rows)))

    def _remove(self, host: Host) -> None:
        """It dies or is cut off; when it is down, it is removed by force; as a rule it comes back."""
        dies = self._random.random() < 0.5
        self._simulator.note(f"SCENARIO {host.name} {'dies' if dies else 'is cut off'}, and is to be removed by force")
        host.go_away(dies=dies)

        def removed() -> None:
            # New instances are given what the guests of this host had.
            self._site.clients.plan_singles(self._random.uniform(0, 60), self._random.randint(4, 13))
            if self._random.random() < 0.3:
                host.lost = True
            else:
                self._later(self._random.uniform(5, 300), lambda: self._bring_back(host))

        self._give_up(host.name, removed, fenced=dies and self._random.random() < 0.5)

    def _give_up(self, name: str, then: Callable[[], None], *, fenced: bool = False) -> None:
        def work(tx: Transaction) -> None:
            with suppress(HostNotFound):  # it was removed without an answer, or it never sent a heartbeat
                force_remove(tx, name, fenced=fenced)

        self._site.oracle.force_removed.add(name)
        self._until_done(f"{name} is removed by force", work, then)

    def _fall_silent(self, host: Host) -> None:
        self._simulator.note(f"SCENARIO {host.name} falls silent")
        host.go_away(dies=self._random.random() < 0.3)
        self._later(self._random.uniform(5, 60), lambda: self._site.clients.terminate_some_of(host.name))
        self._later(self._random.uniform(*_SILENCE_S), lambda: self._bring_back(host))

    def _bring_back(self, host: Host) -> None:
        self._simulator.note(f"SCENARIO {host.name} is back")
        host.come_back()

    def _rename(self, host: Host) -> None:
        self._simulator.note(f"SCENARIO {host.name} is renamed")
        host.rename(f"{host.hardware}-new")
        self._later(self._random.uniform(20, 150), lambda: self._rename_back(host))

    def _rename_back(self, host: Host) -> None:
        self._simulator.note(f"SCENARIO {host.name} has its old name again")
        host.rename(host.hardware)

    def _repair(self) -> None:
        """`pileus audit --repair`, in the middle of everything."""
        if not self._process.alive:
            return
        self._simulator.note("SCENARIO pileus audit --repair")
        self.repairs += 1

        def repair() -> None:
            try:
                run_audit(self._site.plane.cloud(self._process), _REPAIR, self._simulator.pause, Inline)
            except CloudError as error:
                self._simulator.note(f"repair failed: {error}")
            except Exception as error:
                self._simulator.surprise(error)

        self._simulator.run(self._process, repair)

    # --- how ---

    def _later(self, delay_s: float, work: Callable[[], None]) -> None:
        self._under_way += 1

        def then() -> None:
            self._under_way -= 1
            work()

        self._simulator.at(delay_s, then)

    def _until_done(
        self, what: str, work: Callable[[Transaction], object], then: Callable[[], None] = lambda: None
    ) -> None:
        """Try until it is accepted."""
        if self._process.alive:
            outcome = carry_out(
                self._simulator, self._process, lambda: self._site.plane.cloud(self._process).write(work)
            )
            if outcome and not isinstance(outcome[0], Exception):
                self._simulator.note(f"SCENARIO {what}")
                then()
                return
            if outcome and not isinstance(outcome[0], CloudError):
                self._simulator.surprise(outcome[0])  # type: ignore[arg-type]
            self._simulator.note(f"not yet: {what}: {outcome[0] if outcome else 'the operator was interrupted'}")
        self._later(self._random.uniform(2, 10), lambda: self._until_done(what, work, then))


class Inline(Executor):
    """Runs what threads would: one after the other, for there is one thread here."""

    def __init__(self, *_: object) -> None:
        """Needs nothing."""

    def map(self, fn: Callable[..., Any], *iterables: Iterable[Any], **_: Any) -> Iterator[Any]:
        """One after the other."""
        return map(fn, *iterables)
