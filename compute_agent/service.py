"""The compute service: the agent of this host, or those of many simulated ones, with queue, threads and timers."""

import heapq
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import structlog

from compute_agent.agent import Agent
from compute_agent.driver import Driver
from compute_agent.errors import WorkAbandoned
from compute_agent.heartbeat import HostOptions, facts
from compute_agent.hypervisor import make_hypervisor
from compute_agent.journal import file
from compute_agent.journal.journal import Journal
from compute_agent.libvirt_driver import libvirtd
from compute_agent.mac_probe import MacProbe, make_probe
from compute_agent.workers.boot_limiter import BootLimiter
from compute_agent.workers.boot_monitor import BootMonitor
from compute_agent.workers.pool import WorkerPool
from compute_agent.workers.reporter import Reporter, guarded
from controller.bus.consumer import QueueConsumer
from controller.bus.sender import Sender
from controller.conf.settings import Settings
from controller.domain.clock import Clock
from controller.domain.errors import PoisonMessage
from controller.domain.messages import AgentCommand, GuestSpec, HostReported, Message, host_queue
from controller.health import thread_problem
from controller.needs import FILES_OF_SQLITE, Needs

log = structlog.get_logger(__name__)

_STOP_TIMEOUT_S = 10.0
_RETRY_S = 1.0
_TIDY_EVERY_S = 30.0


def _journal_path(settings: Settings) -> Path:
    return settings.state_dir / "agent" / "journal.db"


def host_names(settings: Settings) -> tuple[str, ...]:
    """The hosts whose agents this process is."""
    hypervisor = make_hypervisor(settings, time.sleep)
    known = settings.general.host or file.known_host(_journal_path(settings), simulated=hypervisor.is_simulated)
    return hypervisor.hosts(known or socket.gethostname())


class ComputeService:
    """Takes commands off the queues of its hosts, works on them with a bounded worker pool, reports and watches."""

    name = "compute"

    @staticmethod
    def needs(settings: Settings) -> Needs:
        """A consumer, and the files of its journal and of the hypervisor's drivers; an agent has no database."""
        return Needs(consumers=1, files=FILES_OF_SQLITE + make_hypervisor(settings, time.sleep).open_files())

    def __init__(self, settings: Settings, bus: Sender, clock: Clock) -> None:
        self._settings = settings
        self._hosts = host_names(settings)
        self._probe: MacProbe | None = None
        self._bus = bus
        self._clock = clock
        self._stop = threading.Event()
        self._hypervisor = make_hypervisor(settings, self._pause)
        self._reporter = Reporter(bus, self._stop)
        self._agents: dict[str, Agent] = {}
        self._drivers: Sequence[Driver] = ()
        self._threads: list[threading.Thread] = []
        self._journal: Journal | None = None
        self._consumer: QueueConsumer | None = None
        self._consuming = False
        self._pool: WorkerPool | None = None

    def start(self) -> None:
        """Start; a hypervisor that does not answer yet is tried again in the background.

        Raises:
            Unavailable: the journal cannot be opened. ConfigurationError: an option cannot be.
        """
        hosts, options = self._hosts, self._host_options()
        self._journal = Journal(_journal_path(self._settings))
        self._drivers = self._hypervisor.drivers(hosts)
        self._agents = {
            host: Agent(host, driver, self._journal, self._bus, self._clock, options=options)
            for host, driver in zip(hosts, self._drivers, strict=True)
        }
        self._pool = self._make_pool()
        self._consumer = QueueConsumer(self._settings, [host_queue(h) for h in hosts], self._handle, self.name)
        self._consumer.declare()  # before the first heartbeat: a host that has sent one is sent commands
        timers = [self._report, self._watch, self._tidy]
        if self._probe is not None:
            timers.append(self._refresh_probe)
        if not self._hypervisor.is_simulated:
            timers.append(self._watch_boots)
        for target in timers:
            thread = threading.Thread(target=target, name=f"compute{target.__name__}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Stop in bounded time; the guests run on, unfinished work is left to the next start."""
        self._stop.set()
        self._reporter.wake()
        for thread in self._threads:
            thread.join(_STOP_TIMEOUT_S)
        if self._consumer is not None and self._consuming:
            self._consumer.stop()
            self._consumer.join(_STOP_TIMEOUT_S)
        if self._pool is not None and not self._pool.stop(_STOP_TIMEOUT_S):
            log.warning("unfinished work is left to the next start")
        self._reporter.flush()
        self._close()

    def problem(self) -> str:
        """Why guests are not taken care of: no hypervisor, no bus, a host whose last heartbeat was not sent."""
        if self._stop.is_set():
            return ""
        for thread in self._threads:
            if ended := thread_problem(thread, stopping=False):
                return ended
        troubled = [(a.host, t) for a in list(self._agents.values()) for t in list(a.troubles.values())[:1]]
        if troubled:
            host, trouble = troubled[0]
            return f"{host}: {trouble}" + (f" (and {len(troubled) - 1} more hosts)" if len(troubled) > 1 else "")
        if not self._consuming or self._consumer is None:
            return "the hypervisor is being asked for its guests"
        return self._consumer.problem()

    def describe(self) -> list[HostReported]:
        """What the hosts of this process are and have, as ``pileus join`` sends it; nothing need run.

        Raises:
            ConfigurationError: the driver is not installed, or an option cannot be. DriverError: it cannot be asked.
        """
        options = self._host_options()
        if self._probe is not None:
            self._probe.refresh()
        self._drivers = self._hypervisor.drivers(self._hosts)
        try:
            at = self._clock()
            return [facts(h, driver, options, at) for h, driver in zip(self._hosts, self._drivers, strict=True)]
        finally:
            self._close()

    def destroy(self) -> None:
        """Remove every guest of this cloud on this host and all that was made for them; nothing need run.

        Raises:
            DriverError: something is left.
        """
        folder = self._settings.state_dir
        if self._hypervisor.may_have_guests():
            self._drivers = self._hypervisor.drivers(self._hosts)
            try:
                for driver in self._drivers:
                    driver.destroy_all()
            finally:
                self._close()
        libvirtd.stop(self._settings)
        for name in ("instances", "removed-disks", "cache", "agent", "libvirt"):
            if (folder / name).exists():
                shutil.rmtree(folder / name)

    def _host_options(self) -> HostOptions:
        compute = self._settings.compute
        self._probe = make_probe(compute, self._hosts[0])
        return HostOptions(
            zone=compute.zone or self._settings.api.zone,
            labels=compute.labels,
            disk_backends=self._hypervisor.disk_backends,
            mac_probe=self._probe,
            start_unconfirmed_after_s=compute.start_unconfirmed_after_min * 60,
            keep_disks_s=compute.keep_removed_disks_s,
        )

    def _close(self) -> None:
        for driver in self._drivers:
            driver.close()
        self._hypervisor.close()
        if self._journal is not None:
            self._journal.close()

    def _pause(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise WorkAbandoned

    def _handle(self, message: Message) -> Message | None:
        if not isinstance(message, AgentCommand) or message.host not in self._agents:
            raise PoisonMessage(reason=f"{message.KIND} is not for an agent of this process")
        agent = self._agents[message.host]
        handled = agent.handle(message)
        self._offer(agent, handled.work)
        if handled.reports:
            self._reporter.mark_dirty(agent)
        return handled.answer

    def _offer(self, agent: Agent, specs: Iterable[GuestSpec]) -> None:
        assert self._pool is not None
        for spec in specs:
            self._pool.offer(agent, spec)

    def _offer_pending(self, agent: Agent) -> None:
        """Queue the guests that need no answer any more."""
        self._offer(agent, agent.pending())
        self._reporter.mark_dirty(agent)

    def _make_pool(self) -> WorkerPool:
        hypervisor, limiter = self._hypervisor, None
        if not hypervisor.is_simulated:  # simulated guests share no cores
            limiter = BootLimiter(os.cpu_count() or 1, fixed=self._settings.compute.boots_at_once)
        return WorkerPool(hypervisor.boot_threads(), self._reporter.mark_dirty, hypervisor.other_threads(), limiter)

    def _watch_boots(self) -> None:
        """The thread that lets as many guests boot at once as the cores carry."""
        assert self._pool is not None
        BootMonitor(self._pool, self._hosts[0], self._drivers[0]).run(self._stop)

    def _report(self) -> None:
        """The thread that sends results and wakes what was paused."""
        assert self._pool is not None
        self._reporter.run(self._pool)

    def _watch(self) -> None:
        """The thread that starts each agent, then sends its heartbeats and watches its guests."""
        self._recover()
        every_s = self._settings.compute.heartbeat_s
        now = time.monotonic()
        # Spread over the interval, so that the heartbeats of many hosts come evenly.
        due = [(now + i * every_s / len(self._agents), h) for i, h in enumerate(self._agents)]
        while due and not self._stop.wait(max(0.0, due[0][0] - time.monotonic())):
            when, host = due[0]
            heapq.heapreplace(due, (max(when, time.monotonic() - every_s) + every_s, host))
            agent = self._agents[host]
            if guarded(agent, agent.watch):
                self._reporter.mark_dirty(agent)
            if guarded(agent, agent.start_unconfirmed):
                guarded(agent, lambda a=agent: self._offer_pending(a))  # type: ignore[misc]
            guarded(agent, agent.heartbeat)

    def _tidy(self) -> None:
        """The thread of ``Agent.tidy``: it may wait for slow disks; heartbeats do not wait for it."""
        while not self._stop.wait(_TIDY_EVERY_S):
            for agent in self._agents.values():
                guarded(agent, agent.tidy)

    def _refresh_probe(self) -> None:
        """The thread that asks which MAC addresses this host may carry, out of the heartbeats' way."""
        assert self._probe is not None
        while not self._stop.is_set():
            try:
                self._probe.refresh(self._stop.is_set)
            except Exception:
                log.exception("MAC probe failed, tried again later")
            self._stop.wait(self._settings.compute.mac_probe_every_s)

    def _recover(self) -> None:
        """Every agent knows its guests before the first command is taken."""
        assert self._consumer is not None
        for agent in self._agents.values():
            while guarded(agent, agent.recover) is None:
                if self._stop.wait(_RETRY_S):
                    return
            guarded(agent, agent.heartbeat)
            while (pending := guarded(agent, agent.pending)) is None:
                if self._stop.wait(_RETRY_S):
                    return
            self._offer(agent, pending)
            self._reporter.mark_dirty(agent)
        if not self._stop.is_set():
            self._consuming = True
            self._consumer.start()
