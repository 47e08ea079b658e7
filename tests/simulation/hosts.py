"""The hosts: hardware that outlives its agent, and the agent as a process."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

from compute_agent.agent import Agent
from compute_agent.driver import Driver
from compute_agent.errors import HypervisorUnreachable, WorkAbandoned
from compute_agent.journal.journal import Journal
from compute_agent.simulated.driver import SimulatedDriver, SimulatedSite
from controller.conf.settings import Compute
from controller.domain.errors import CloudError, PoisonMessage, Unavailable
from controller.domain.guests import OffCause, Power
from controller.domain.messages import AgentCommand, GuestSpec, Message, ReconcileGuests, host_queue
from tests.simulation.bus import Broker
from tests.simulation.faults import Fault
from tests.simulation.simulator import Process, Simulator

T = TypeVar("T")

_RETRY_S = 1.0
_LINGER_S = 0.01
# Hardware, instance, what it was, what it is (None where there is no guest), its address.
Watcher = Callable[[str, str, Power | None, Power | None, str], None]


class WatchedSite(SimulatedSite):
    """The hardware of all hosts; tells of every change of a guest's power."""

    def __init__(self, path: Path, simulator: Simulator, watcher: Watcher) -> None:
        super().__init__(path)
        self._simulator = simulator
        self._watcher = watcher

    def keep(self, host: str, instance_id: str, guest: tuple[Power, str, int]) -> None:
        self._changes(host, instance_id, guest[0], guest[1])
        super().keep(host, instance_id, guest)

    def remove(self, host: str, instance_id: str) -> None:
        self._changes(host, instance_id, None)
        super().remove(host, instance_id)

    def _changes(self, host: str, instance_id: str, after: Power | None, ip: str = "") -> None:
        before = self.guests(host).get(instance_id)
        self._simulator.note(f"{instance_id[:8]} is {after or 'gone'} on {host}")
        self._watcher(host, instance_id, before[0] if before else None, after, ip)


class HostDriver(SimulatedDriver):
    """The simulated driver on a host that can be booted, whose hypervisor may not answer."""

    def __init__(self, host: "Host", simulator: Simulator, compute: Compute, site: WatchedSite) -> None:
        super().__init__(host.hardware, compute, site, random=simulator.random, pause=simulator.pause)
        self._on = host
        self._simulator = simulator

    # The seams are around these, not below: a paused task must hold no lock: in one thread nothing would release it.

    def _keep(self, instance_id: str, guest: tuple[Power, str, int]) -> None:
        self._simulator.point("hypervisor begins")
        super()._keep(instance_id, guest)
        if guest[0] is Power.RUNNING:
            self._on.runs(instance_id)
        self._simulator.point("hypervisor has done it")

    def _forget(self, instance_id: str) -> None:
        self._simulator.point("hypervisor begins to remove")
        super()._forget(instance_id)
        self._simulator.point("hypervisor has removed it")

    def why_off(self, instance_ids: Collection[str]) -> Mapping[str, OffCause]:
        """As a hypervisor knows it: what a boot of the host took down did not shut itself down."""
        by_itself = self._on.went_off
        return {i: OffCause.SHUTDOWN if by_itself[i] else OffCause.UNKNOWN for i in instance_ids}

    @property
    def boot_id(self) -> str:
        return f"{self._on.hardware}-boot-{self._on.boots}"


class Seam:
    """Anything behind a seam: each call may be the last, and may fail."""

    def __init__(
        self, name: str, target: object, simulator: Simulator, fault: Fault, error: Callable[[], Exception]
    ) -> None:
        self._name = name
        self._target = target
        self._simulator = simulator
        self._fault = fault
        self._error = error

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if not callable(found):
            return found

        def call(*args: Any, **named: Any) -> Any:
            self._simulator.point(f"{self._name}.{name}")
            if self._simulator.faults.strikes(self._fault):
                raise self._error()
            answer = found(*args, **named)
            self._simulator.point(f"{self._name}.{name} done")
            return answer

        return call


@dataclass(frozen=True)
class Taken:
    """The newest command for a guest, and when the agent took it from its queue."""

    generation: int
    at: float


class Host:
    """One host: its hardware stays, its agent comes and goes."""

    def __init__(
        self, name: str, simulator: Simulator, broker: Broker, site: WatchedSite, compute: Compute, folder: Path
    ) -> None:
        """``hardware`` is what it always is; ``name`` is what its agent calls itself."""
        self.hardware = self.name = name
        self.boots = 1
        self.away = False  # until an operator brings it back
        self.lost = False  # for ever
        self.early_off_share = 0.0
        self.agent_crashes = 0
        self.went_off: Counter[str] = Counter()
        self.taken: dict[str, Taken] = {}  # by instance
        self.without_epoch: set[str] = set()  # instances of which a service of release 0.1 has sent a command
        self.lost_journals = 0
        self._simulator = simulator
        self._broker = broker
        self._site = site
        self._compute = compute
        self._journal_file = folder / f"journal-{name}.db"
        self._journal: Journal | None = None
        self.process = Process(name, self._boot)
        self._driver: HostDriver | None = None

    def reboot(self) -> None:
        """The machine itself is booted: no guest runs, the agent begins anew."""
        self._simulator.kill(self.process)
        self.boots += 1
        for instance_id, (power, ip, boots) in self._site.guests(self.hardware).items():
            if power is Power.RUNNING:
                SimulatedSite.keep(self._site, self.hardware, instance_id, (Power.SHUT_OFF, ip, boots))

    def go_away(self, *, dies: bool) -> None:
        """It is not heard of until it is brought back: switched off, or only out of reach, its guests running on."""
        self.away = True
        if dies:
            self.process.gone = True
            self.reboot()
        else:
            self.process.outages.append((self._simulator.now, math.inf))
            self.process.cut_off_until = math.inf

    def come_back(self) -> None:
        """It is there again, as it was left."""
        self.away = self.process.gone = False
        if self.process.cut_off_until == math.inf:
            since, _ = self.process.outages.pop(self.process.outages.index(self._unended_outage()))
            self.process.outages.append((since, self._simulator.now))
            self.process.cut_off_until = 0.0
        self._simulator.start(self.process)
        self._broker.pump_all()

    def _unended_outage(self) -> tuple[float, float]:
        return next(o for o in self.process.outages if o[1] == math.inf)

    def rename(self, name: str) -> None:
        """The machine's name changes; its agent is started anew."""
        self._simulator.kill(self.process)
        self.name = name

    def runs(self, instance_id: str) -> None:
        """A guest runs; some power themselves off at once."""
        simulator = self._simulator
        if not simulator.faults.calm and self.early_off_share and simulator.random.random() < self.early_off_share:
            simulator.at(simulator.random.expovariate(2), lambda: self.power_off_guest(instance_id))

    def power_off_guest(self, instance_id: str) -> None:
        """A guest powers itself off, if it runs; its agent is to notice."""
        power, ip, boots = self._site.guests(self.hardware).get(instance_id, (Power.SHUT_OFF, "", 0))
        if power is not Power.RUNNING:
            return
        self._simulator.note(f"{instance_id[:8]} powers itself off", self.process)
        self.went_off[instance_id] += 1
        SimulatedSite.keep(self._site, self.hardware, instance_id, (Power.SHUT_OFF, ip, boots))
        if self._driver is not None:
            self._driver._guests[instance_id] = (Power.SHUT_OFF, ip, boots)

    def lose_journal(self) -> None:
        """The disk with the journal is replaced; the guests run on."""
        self._simulator.kill(self.process)
        self.lost_journals += 1
        for suffix in ("", "-wal", "-shm"):
            self._journal_file.with_name(self._journal_file.name + suffix).unlink(missing_ok=True)

    def close(self) -> None:
        """The end of the seed: close what the agent has open."""
        if self._journal is not None:
            self._journal.close()

    @property
    def epoch(self) -> int:
        """The epoch that its agent knows of."""
        return self._journal.accepted(self.name)[0] if self._journal is not None else 0

    def expires_at(self, instance_id: str) -> str:
        """Until when the agent may begin what it has in hand for a guest; empty: nothing was said."""
        return self._journal.expiries(self.name).get(instance_id, "") if self._journal is not None else ""

    @property
    def pending(self) -> bool:
        """Whether the agent has something to do or to tell."""
        journal = self._journal
        return (
            not self.process.alive
            or journal is None
            or bool(journal.pending(self.name) or journal.unreported(self.name))
        )

    def _boot(self, process: Process) -> None:
        self._journal = Journal(self._journal_file)
        self._driver = HostDriver(self, self._simulator, self._compute, self._site)
        process.on_death.append(self._close)
        away = HypervisorUnreachable(what="The hypervisor", reason="it does not answer")
        driver = Seam("driver", self._driver, self._simulator, Fault.HYPERVISOR_AWAY, lambda: away)
        full = Unavailable(what="The agent's journal", reason="disk full")
        journal = Seam("journal", self._journal, self._simulator, Fault.JOURNAL_FULL, lambda: full)
        agent = Agent(
            self.name,
            cast(Driver, driver),
            cast(Journal, journal),
            self._broker.bus_of(process),
            lambda: self._simulator.clock(process),
            jitter=self._simulator.random.random,
            monotonic=lambda: self._simulator.now,
        )
        AgentProcess(agent, process, self._simulator, self._broker, self._compute.heartbeat_s, self).begin()

    def _close(self) -> None:
        self.agent_crashes += 1
        if self._journal is not None:
            self._journal.close()
        self._journal = self._driver = None


class AgentProcess:
    """What ComputeService and its workers do for one agent, with events where they have threads."""

    def __init__(
        self,
        agent: Agent,
        process: Process,
        simulator: Simulator,
        broker: Broker,
        heartbeat_s: float,
        host: Host,
    ) -> None:
        self._agent = agent
        self._host = host
        self._process = process
        self._simulator = simulator
        self._broker = broker
        self._heartbeat_s = heartbeat_s
        self._working: dict[str, bool] = {}  # instance -> whether to work on it again
        self._tickets: dict[str, int] = {}  # instance -> the pause that counts
        self._dirty = False

    def begin(self) -> None:
        """The guests are known before the first command is taken."""
        if self._guarded(self._agent.recover) is None:
            self._simulator.at(_RETRY_S, self.begin, self._process)
            return
        self._guarded(self._agent.heartbeat)
        pending = self._guarded(self._agent.pending)
        if pending is None:
            self._simulator.at(_RETRY_S, self.begin, self._process)
            return
        for spec in pending:
            self._offer(spec)
        self._mark_dirty()
        self._broker.consume_calls(self._process, host_queue(self._agent.host), self._take)
        self._simulator.every(self._process, lambda: self._heartbeat_s, self._watch)

    def _take(self, message: Message) -> Message | None:
        if not isinstance(message, AgentCommand) or message.host != self._agent.host:
            raise PoisonMessage(reason=f"{message.KIND} is not for this agent")
        handled = self._agent.handle(message)
        for spec in message.guests if isinstance(message, ReconcileGuests) else ():
            taken = self._host.taken
            if spec.instance_id not in taken or taken[spec.instance_id].generation < spec.generation:
                taken[spec.instance_id] = Taken(spec.generation, self._simulator.now)
            if isinstance(message, ReconcileGuests) and not message.epoch:
                self._host.without_epoch.add(spec.instance_id)
        for spec in handled.work:
            self._offer(spec)
        if handled.reports:
            self._mark_dirty()
        return handled.answer

    def _watch(self) -> None:
        if self._guarded(self._agent.watch):
            self._mark_dirty()
        self._guarded(self._agent.heartbeat)
        self._guarded(self._agent.tidy)

    # --- the workers ---

    def _offer(self, spec: GuestSpec) -> None:
        instance_id = spec.instance_id
        if instance_id in self._working:
            self._working[instance_id] = True
        else:
            self._working[instance_id] = False
            self._tickets[instance_id] = self._tickets.get(instance_id, 0) + 1
            self._simulator.at(self._simulator.random.expovariate(10), lambda: self._work(instance_id), self._process)

    def _work(self, instance_id: str) -> None:
        self._working[instance_id] = False
        try:
            pause_s = self._agent.work(instance_id)
        except WorkAbandoned:
            pause_s = None
        except Unavailable:
            pause_s = _RETRY_S
        except Exception as error:
            self._simulator.surprise(error)
            pause_s = _RETRY_S
        if self._working[instance_id] or pause_s == 0:
            self._simulator.at(0, lambda: self._work(instance_id), self._process)
        else:
            del self._working[instance_id]
            if pause_s is not None:
                ticket = self._tickets[instance_id]
                self._simulator.at(pause_s, lambda: self._work_again(instance_id, ticket), self._process)
        self._mark_dirty()

    def _work_again(self, instance_id: str, ticket: int) -> None:
        if self._tickets[instance_id] == ticket and instance_id not in self._working:
            self._work(instance_id)

    # --- reports ---

    def _mark_dirty(self) -> None:
        if not self._dirty:
            self._dirty = True
            self._simulator.at(_LINGER_S, self._report, self._process)

    def _report(self) -> None:
        self._dirty = False
        if not self._guarded(self._agent.report):
            self._dirty = True
            self._simulator.at(_RETRY_S, self._report, self._process)

    def _guarded(self, work: Callable[[], T]) -> T | None:
        try:
            return work()
        except CloudError as error:
            self._simulator.note(f"not done, tried again later: {error}")
        except Exception as error:
            self._simulator.surprise(error)
        return None


def with_failures(compute: Compute, rate: float) -> Compute:
    """The same hosts, whose drivers fail now and then."""
    return replace(compute, simulated_failure_rate=rate)
