"""The control plane's services as processes: their real handlers and sweeps, with events where they have threads."""

from collections.abc import Callable
from random import Random

from controller.domain.ids import IdSource
from controller.domain.messages import EVENTS, HEARTBEATS, NETWORK_OBSERVATION, host_queue
from controller.operations.cloud import Cloud
from controller.operations.hosts import fencing
from controller.workers.service import ControllerService
from network.service import QUEUE as NETWORK
from network.service import NetworkService
from scheduler.host_cache import HostCache
from scheduler.service import Placer
from tests.simulation.bus import Broker
from tests.simulation.commit_monitor import Handler
from tests.simulation.database import SimulationDatabase
from tests.simulation.releases import OldRelease
from tests.simulation.simulator import Process, Simulator

_BATCH = 20
_PURGE_S = 300.0
# While faults strike, rounds come at the configured pace; in the calm afterwards there is nothing to hurry for.
_CALM = 3.0


class ControlPlane:
    """Makes the processes of the services."""

    def __init__(
        self,
        simulator: Simulator,
        broker: Broker,
        sim_database: SimulationDatabase,
        ids: Random,
        hearing: Callable[[Handler], Handler] = lambda handler: handler,
    ) -> None:
        """``hearing`` is put around the handler of events."""
        self._simulator = simulator
        self._broker = broker
        self._sim_database = sim_database
        self._ids = IdSource(ids)
        self._hearing = hearing
        self.apis: list[Process] = []
        self.others: list[Process] = []

    def make(self, apis: int, schedulers: int, controllers: int) -> None:
        """So many of each, and the network service."""
        self.apis = [self._process(f"api-{n}", lambda _: None) for n in range(apis)]
        self.others = [
            *(self._process(f"scheduler-{n}", self._scheduler) for n in range(schedulers)),
            self._process("network", self._network),
            *(self._process(f"controller-{n}", self._controller) for n in range(controllers)),
        ]

    @property
    def controllers(self) -> list[Process]:
        """Those of the others that sweep."""
        return [p for p in self.others if p.name.startswith("controller")]

    def cloud(self, process: Process) -> Cloud:
        """The cloud as this process holds it."""
        return Cloud(
            self._sim_database.settings,
            self._sim_database.database,
            self._broker.bus_of(process),
            lambda: self._simulator.clock(process),
            self._ids,
            lambda: self._simulator.true_time,
        )

    def pace(self, seconds: float) -> float:
        """How long a round takes now."""
        return seconds * (_CALM if self._simulator.faults.calm else 1.0)

    def _process(self, name: str, boot: Callable[[Process], None]) -> Process:
        return Process(name, boot, skew_s=self._simulator.random.uniform(-2, 2))

    def _scheduler(self, process: Process) -> None:
        placer = Placer(self.cloud(process), HostCache(lambda: self._simulator.now))
        self._broker.consume(process, "schedule", placer, batch=_BATCH)

    def _network(self, process: Process) -> None:
        service = NetworkService(self.cloud(process))
        self._broker.consume(process, NETWORK, service.handle, batch=_BATCH)
        self._broker.consume_calls(process, NETWORK_OBSERVATION, service.answer)

    def _controller(self, process: Process) -> None:
        cloud = self.cloud(process)
        service = ControllerService(cloud, can_hear=lambda: self._can_hear(process))
        for queue in (EVENTS, HEARTBEATS)[: 1 if isinstance(process.release, OldRelease) else 2]:
            self._broker.consume(process, queue, self._hearing(service.handle), batch=_BATCH)
        self._broker.consume_dead(process, service.record_dead_letter)
        sweep_s = cloud.settings.controller.sweep_s
        self._simulator.every(process, lambda: self.pace(sweep_s), service.sweep)
        self._simulator.every(process, lambda: self.pace(_PURGE_S), service.purge)
        self._simulator.every(process, lambda: self.pace(sweep_s), lambda: self._remove_queues(process, cloud))

    def _remove_queues(self, process: Process, cloud: Cloud) -> None:
        """As ControllerService does with a real broker."""
        for host in cloud.read(fencing.with_queues):
            self._simulator.point("remove queue")
            if not self._broker.reaches(process):
                return
            self._broker.remove_queue(host_queue(host))
            cloud.write(lambda tx, h=host: fencing.queue_removed(tx, h))  # type: ignore[misc]

    def _can_hear(self, process: Process) -> bool:
        """As the consumer of events knows it: it has had its broker for long enough, without a break."""
        since = max(process.up_since, self._broker.up_since, process.cut_off_until)
        return self._broker.reaches(process) and (
            self._simulator.now - since > self._sim_database.settings.controller.host_down_after_s
        )
