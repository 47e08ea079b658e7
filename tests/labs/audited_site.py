"""Hosts and a network node that show what the rows say, for audits of observed state."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from controller.db.models import Network
from controller.domain.errors import BusUnavailable
from controller.domain.guests import Desired, Power
from controller.domain.messages import (
    DiskState,
    GuestState,
    HostObservation,
    Message,
    NetworkObservation,
    ObserveHost,
    ReconcileGuests,
    ReconcileNetworks,
    RemoveTaps,
    SegmentObservation,
)
from controller.domain.names import lease_hostname, tap_name
from controller.domain.states import Event, State
from controller.operations.audit.run import AuditOptions, Report, run_audit
from controller.operations.audit.violation import Violation
from controller.operations.cloud import Cloud
from controller.operations.instances import actions
from controller.operations.instances.views import InstanceView
from controller.operations.networks.leases import FIRST_OFFSET, end_offset
from tests.labs.bus import FakeBus
from tests.labs.cloud import TestCloud, place

CLOUD_ID = "c10dc10d"


AT_ONCE = AuditOptions(settle_s=0, timeout_s=1)


@dataclass
class SiteBus(FakeBus):
    """Answers the auditor's calls as hosts and a network node would; ``mute`` ones do not."""

    hosts: dict[str, HostObservation] = field(default_factory=dict)
    network: NetworkObservation = field(default_factory=lambda: NetworkObservation(host_side=True))
    mended: NetworkObservation | None = None
    mute: set[str] = field(default_factory=set)
    called: list[Message] = field(default_factory=list)

    def call(self, message: Message, timeout_s: float) -> Message:
        self.called.append(message)
        if self.down:
            raise BusUnavailable(what="The message bus", reason="it is away")
        if isinstance(message, ObserveHost | RemoveTaps):
            if message.host in self.mute:
                raise TimeoutError
            if isinstance(message, RemoveTaps):
                seen = self.hosts[message.host]
                self.hosts[message.host] = replace(seen, taps=tuple(t for t in seen.taps if t not in message.taps))
            return self.hosts[message.host]
        if isinstance(message, ReconcileNetworks) and self.mended is not None:
            self.network = self.mended
        return self.network

    def send(self, message: Message) -> None:
        """A host that is told to remove guests does so."""
        super().send(message)
        if isinstance(message, ReconcileGuests):
            gone = {g.instance_id for g in message.guests if g.desired is Desired.ABSENT}
            seen = self.hosts.get(message.host, HostObservation(message.host))
            self.hosts[message.host] = replace(
                seen,
                guests=tuple(g for g in seen.guests if g.instance_id not in gone),
                disks=tuple(d for d in seen.disks if d.instance_id not in gone),
            )


@dataclass
class GoodSite:
    """Two hosts and a network node that are as the rows say: two instances ACTIVE, one STOPPED, one BUILDING."""

    site: TestCloud
    bus: SiteBus
    active: str
    other: str
    stopped: str
    building: str
    network_id: str

    @classmethod
    def make(cls, site: TestCloud) -> "GoodSite":
        bus = SiteBus()
        site.bus = bus
        site.cloud = Cloud(site.cloud.settings, site.cloud.database, bus, site.clock, site.cloud.ids)
        site.heartbeat("h1")
        site.heartbeat("h2")
        active, other, stopped = site.launch(3)
        place(site)
        site.report([active, other, stopped], Event.RUNNING)
        site.cloud.write(lambda tx: actions.stop(tx, site.project_id, [stopped]))
        site.report([stopped], Event.SHUT_OFF)
        (building,) = site.launch(1)
        place(site)
        network_id = site.cloud.read(lambda tx: tx.session.query(Network).one().id)
        made = cls(site, bus, active, other, stopped, building, network_id)
        made.show_truth()
        site.clock.advance(200)
        for host in ("h1", "h2"):
            site.heartbeat(host, guests=bus.hosts[host].guests)
        bus.sent.clear()
        return made

    def show_truth(self) -> None:
        views = [v for v in self.site.views() if v.host_id and v.state != State.BUILDING]
        for host in ("h1", "h2"):
            here = [v for v in views if v.host_id == host]
            self.bus.hosts[host] = HostObservation(
                host,
                tuple(GuestState(i.id, i.generation, _power(i)) for i in here),
                tuple(DiskState(i.id, i.generation) for i in here),
                tuple(tap_name(CLOUD_ID, i.id) for i in here if i.state == State.ACTIVE),
            )
        self.bus.network = NetworkObservation(host_side=True, segments=(self._segment(),))
        self.bus.mended = self.bus.network

    def _segment(self) -> SegmentObservation:
        leases = [(v.mac, v.ip) for v in self.site.views() if v.state != State.BUILDING]
        cidr = self.site.cloud.read(lambda tx: tx.session.query(Network).one().cidr)
        return SegmentObservation(
            network_id=self.network_id,
            bridge=True,
            servers=1,
            lease_max=end_offset(cidr) - FIRST_OFFSET,
            served=tuple(f"{mac},{ip},{lease_hostname('', ip)}" for mac, ip in leases),
            given=tuple(f"{mac},{ip}" for mac, ip in leases[:1]),
        )

    def host_of(self, instance_id: str) -> str:
        return self.site.instance(instance_id).host_id or ""

    def change(self, host: str, **changes: object) -> None:
        self.bus.hosts[host] = replace(self.bus.hosts[host], **changes)  # type: ignore[arg-type]

    def segment(self, **changes: object) -> None:
        segment = replace(self.bus.network.segments[0], **changes)  # type: ignore[arg-type]
        self.bus.network = replace(self.bus.network, segments=(segment,))

    def violations(self) -> list[Violation]:
        return list(self.run(AT_ONCE).violations)

    def repair(self, **options: int) -> Report:
        return self.run(replace(AT_ONCE, repair=True, **options))  # type: ignore[arg-type]

    def run(self, options: AuditOptions, between: Callable[[float], None] = lambda _: None) -> Report:
        return run_audit(self.site.cloud, options, between)

    def absent(self) -> list[tuple[str, str, int]]:
        """What hosts were told to remove."""
        return [
            (m.host, g.instance_id, g.generation)
            for m in self.bus.take(ReconcileGuests)
            for g in m.guests
            if g.desired is Desired.ABSENT
        ]


def _power(instance: InstanceView) -> Power:
    return Power.RUNNING if instance.state == State.ACTIVE else Power.SHUT_OFF
