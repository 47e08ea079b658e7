"""The network service: reconciles networks when it is notified, and all of them periodically."""

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence

import structlog

from controller.bus.batch_consumer import BatchConsumer
from controller.bus.consumer import QueueConsumer
from controller.conf.settings import Settings
from controller.domain.errors import CloudError, HostError, PoisonMessage
from controller.domain.messages import (
    NETWORK_OBSERVATION,
    Message,
    NetworkObservation,
    ObserveNetworks,
    PrepareNetworks,
    ReconcileNetworks,
)
from controller.health import thread_problem
from controller.needs import FILES_OF_A_WORKER, Needs
from controller.operations.cloud import Cloud
from network import queries
from network.host_side import Reconciled, make_host_side

log = structlog.get_logger(__name__)

QUEUE = "network"
_STOP_S = 10
# Leases that a sweep reads and compares while launches wait.
_LEASES_AT_ONCE = 5000


class NetworkService:
    """Runs on the network node, one for a cloud.

    With ``[network] driver = none`` there is no host side: instances are only passed on to their hosts.
    """

    name = "network"

    @staticmethod
    def needs(settings: Settings) -> Needs:
        """Threads for the queue and the auditor's calls, which consume, and for the sweep, if there is a host side."""
        if settings.network.driver == "none":
            return Needs(database_threads=2, consumers=2)
        return Needs(database_threads=3, consumers=2, files=2 * FILES_OF_A_WORKER)

    def __init__(self, cloud: Cloud, interval_s: float = 10.0) -> None:
        self._cloud = cloud
        self._interval_s = interval_s
        self._host_side = make_host_side(cloud.settings)
        self._stop = threading.Event()
        self._failed = ""
        self._consumer = BatchConsumer(cloud.settings, [QUEUE], self.handle, name=self.name)
        self._calls = QueueConsumer(cloud.settings, [NETWORK_OBSERVATION], self.answer, name=NETWORK_OBSERVATION)
        self._sweeper = threading.Thread(target=self._sweep_forever, name="network-sweep", daemon=True)

    def start(self) -> None:
        """Start to consume and to sweep.

        Raises:
            ConfigurationError: this machine lacks what real networks need.
        """
        if self._host_side is not None:
            self._host_side.check_machine()
            self._sweeper.start()
        self._consumer.start()
        self._calls.start()

    def stop(self) -> None:
        """End both; bridges, dnsmasq and firewall stay as they are, for the guests go on."""
        self._stop.set()
        for consumer in (self._consumer, self._calls):
            consumer.stop()
        for consumer in (self._consumer, self._calls):
            consumer.join(_STOP_S)
        if self._sweeper.is_alive():
            self._sweeper.join(_STOP_S)

    def problem(self) -> str:
        """Why networks are not reconciled."""
        found = (self._consumer.problem(), self._calls.problem())
        swept = (
            (self._failed, thread_problem(self._sweeper, self._stop.is_set())) if self._host_side is not None else ()
        )
        return next(filter(None, (*found, *swept)), "")

    def destroy(self) -> None:
        """Remove all that this cloud's networks have on this host; needs neither the database nor the bus.

        Raises:
            HostError: something could not be removed; the rest has been.
        """
        if self._host_side is not None:
            self._host_side.destroy()

    def handle(self, messages: Sequence[Message]) -> None:
        """Carry out some ``PrepareNetworks`` at once: first the networks, then the commands to the hosts.

        What fails is recorded in the history of its instances and tried again when the sweep notifies again.
        """
        network_ids: set[str] = set()
        instance_ids: set[str] = set()
        for message in messages:
            if not isinstance(message, PrepareNetworks):
                raise PoisonMessage(reason=f"the network service has no handler for {message.KIND}")
            if not message.instance_ids:  # leases were given back or changed: which ones, the rows say
                network_ids.update(message.network_ids)
            instance_ids.update(message.instance_ids)
        failed = self._reconcile(network_ids, instance_ids)
        if instance_ids:
            self._cloud.bus.notify(self._cloud.ask(lambda tx: queries.commands(tx, instance_ids, failed)))
        if instance_ids and failed:
            self._cloud.write(lambda tx: queries.record_failures(tx, instance_ids, failed))

    def answer(self, message: Message) -> NetworkObservation:
        """Report to the auditor what there is on this host, after a sweep if it asks for one."""
        if not isinstance(message, ObserveNetworks | ReconcileNetworks):
            raise PoisonMessage(reason=f"the network service has no answer to {message.KIND}")
        if self._host_side is None:
            return NetworkObservation(host_side=False)
        if isinstance(message, ReconcileNetworks):
            try:
                self.sweep(whole=True)
            except (HostError, OSError) as error:
                return NetworkObservation(host_side=True, error=str(error))
        return self._host_side.observed(lambda: self._cloud.read(queries.rows))

    def sweep(self, *, whole: bool = False) -> None:
        """Make every network equal to its rows; costs little where it already is.

        Leases are read only of networks that have changed, or were not looked at in whole for long (``whole``: of all),
        and some networks at a time, so that instances which are launched meanwhile do not wait for all of them.
        """
        if self._host_side is None:
            return
        seen = self._host_side.reconcile(lambda: self._cloud.read(queries.marks), verify=True)
        due = seen.stale | {n for n, new in seen.rows.new.items() if whole or new.quarantined}
        sizes = {n: new.mark.count for n, new in seen.rows.new.items() if n in due}
        for network_ids in _portions(sizes):
            done = self._host_side.reconcile(lambda ids=network_ids: self._read(ids, ()), verify=False)  # type: ignore[misc]
            self._take_back(done)

    def _reconcile(self, network_ids: Collection[str], instance_ids: Collection[str]) -> Mapping[str, str]:
        """Why networks failed. Of those that only get instances more, no more than these instances' leases is read."""
        if self._host_side is None:
            return {}
        done = self._host_side.reconcile(lambda: self._read(network_ids, instance_ids), verify=False)
        self._take_back(done)
        if not done.stale:
            return done.failed
        again = self._host_side.reconcile(lambda: self._read(done.stale, ()), verify=False)
        self._take_back(again)
        return {**done.failed, **again.failed}

    def _read(self, network_ids: Collection[str], instance_ids: Collection[str]) -> queries.Rows:
        return self._cloud.read(lambda tx: queries.new_rows(tx, network_ids, instance_ids))

    def _take_back(self, done: Reconciled) -> None:
        """What DHCP has forgotten can be given out again."""
        if done.rows.quarantined:
            self._cloud.write(lambda tx: queries.end_quarantine(tx, done.rows, done.remembered))

    def _sweep_forever(self) -> None:
        while not self._stop.is_set():
            try:
                self.sweep()
                self._failed = ""
            except CloudError as error:
                self._failed = f"networks are not swept: {error}"
                log.warning("networks not swept, trying again", reason=str(error))
            except Exception as error:
                self._failed = f"networks are not swept: {type(error).__name__}: {error}"
                log.exception("sweep of the networks failed")
            self._stop.wait(self._interval_s)


def _portions(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """The networks, each time so many as have ``_LEASES_AT_ONCE`` together, but one at least."""
    portion: list[str] = []
    leases = 0
    for network_id, size in sizes.items():
        if portion and leases + size > _LEASES_AT_ONCE:
            yield portion
            portion, leases = [], 0
        portion.append(network_id)
        leases += size
    if portion:
        yield portion
