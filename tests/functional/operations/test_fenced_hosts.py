"""A host is removed with commands in its queues, on a real broker: none of them is carried out when it is back."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from kombu import Connection, Queue

from compute_agent.service import ComputeService
from compute_agent.simulated.driver import SimulatedDriver, SimulatedSite
from controller.bus.bus import Bus
from controller.bus.connection import connect
from controller.bus.topology import Topology
from controller.conf.settings import Settings
from controller.domain.clock import system_clock
from controller.domain.errors import BusUnavailable
from controller.domain.guests import Power
from controller.domain.messages import HostAccepted, HostReported, ReconcileGuests, host_queue
from controller.operations.hosts import fencing, force_removal, lost_hosts
from controller.workers.service import ControllerService
from tests.faults.table import row
from tests.labs.agent import guest
from tests.labs.cloud import TestCloud
from tests.labs.waiting import wait_for

pytestmark = [pytest.mark.functional, pytest.mark.timeout(200)]


@pytest.fixture
def cloud(settings: Settings, tmp_path: Path) -> Iterator[TestCloud]:
    """A site whose hosts join, on the broker of the test."""
    made = TestCloud.create(tmp_path / "site", bus__url=settings.bus.url, controller__open_registration="true")
    bus = Bus(made.cloud.settings)
    yield replace(made, cloud=replace(made.cloud, bus=bus))
    bus.close()
    made.close()


def _there(connection: Connection, queue: Queue) -> bool:
    channel = connection.channel()
    try:
        queue(channel).queue_declare(passive=True)
    except connection.channel_errors:
        return False
    channel.close()
    return True


def _lose(site: TestCloud) -> None:
    site.clock.advance(3600)
    site.cloud.write(lost_hosts.mark_lost)
    site.cloud.write(lambda tx: force_removal.force_remove(tx, "h1"))


@row(
    fault="a host is removed (`pileus host remove --force`) while commands wait in its queue on RabbitMQ",
    strikes="its agent is away; it is of this release, or of 0.1",
    seen="the queues are removed with the commands",
)
def test_its_queues_are_removed(cloud: TestCloud) -> None:
    cloud.heartbeat("h1")
    queues = [Topology(cloud.cloud.settings).queue(host_queue("h1"))]
    queues.append(Topology(cloud.cloud.settings).durable(host_queue("h1")))
    with connect(cloud.cloud.settings) as connection:
        for queue in queues:
            queue(connection.channel()).declare()
        controller = ControllerService(cloud.cloud, lambda: False)
        controller.remove_queues()
        assert [_there(connection, q) for q in queues] == [True, True]  # it is registered
        _lose(cloud)
        controller.remove_queues()
        assert [_there(connection, q) for q in queues] == [False, False]
        assert cloud.cloud.read(fencing.with_queues) == []
        controller.remove_queues()


@row(
    fault="a removed host's agent comes back and finds a command from before on RabbitMQ",
    strikes="the command starts a guest whose address may belong to another",
    seen="the agent takes the command off its queue and starts nothing; commands of its new epoch are carried out",
)
def test_a_stale_command_starts_nothing(cloud: TestCloud, tmp_path: Path) -> None:
    site = cloud.cloud.settings
    of_host = replace(
        site,
        general=replace(site.general, state_dir=str(tmp_path / "host"), host="h"),
        compute=replace(site.compute, driver="simulated", simulated_hosts=1, heartbeat_s=0.2),
    )
    host = "h-0001"
    now = system_clock().isoformat()
    beats: list[HostReported] = []

    class Recording(Bus):
        def notify(self, messages):  # type: ignore[no-untyped-def]
            beats.extend(m for m in messages if isinstance(m, HostReported))

    bus = Recording(of_host)
    service = ComputeService(of_host, bus, system_clock)
    service.start()
    try:
        wait_for(lambda: bool(beats) and beats[-1].asks)
        # Consumed in this order: one queue, one consumer.
        wait_for(lambda: _delivered(bus, HostAccepted(host, f"simulated-{host}", 7, now, 0)))
        bus.send(ReconcileGuests(host, (guest(1),), 5))
        bus.send(ReconcileGuests(host, (guest(2),), 7))
        wait_for(lambda: [g.instance_id for g in beats[-1].guests] == [guest(2).instance_id])
        assert beats[-1].epoch == 7
        assert beats[-1].pending == ()
    finally:
        service.stop()
        bus.close()


def _delivered(bus: Bus, message: HostAccepted) -> bool:
    """The agent declares its queue a moment after it has begun."""
    try:
        bus.send(message)
    except (BusUnavailable, TimeoutError):
        return False
    return True


@row(
    fault="a host boots while the broker is away",
    strikes="a guest ran there before; its address may belong to another by now",
    seen="the guest is not started while no controller answers; it is once a controller has answered for this boot",
)
def test_a_boot_without_a_broker_starts_nothing(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, beats = "h-0001", list[HostReported]()
    of_host = replace(
        settings,
        general=replace(settings.general, state_dir=str(tmp_path / "host"), host="h"),
        compute=replace(settings.compute, driver="simulated", simulated_hosts=1, heartbeat_s=0.2),
    )

    class Recording(Bus):
        def notify(self, messages):  # type: ignore[no-untyped-def]
            beats.extend(m for m in messages if isinstance(m, HostReported))

    bus = Recording(of_host)
    before = ComputeService(of_host, bus, system_clock)
    before.start()
    now = system_clock().isoformat()
    wait_for(lambda: _delivered(bus, HostAccepted(host, f"simulated-{host}", 7, now, 0)))
    bus.send(ReconcileGuests(host, (guest(1),), 7))
    wait_for(lambda: bool(beats) and [g.power for g in beats[-1].guests] == [Power.RUNNING])
    before.stop()
    site = SimulatedSite(tmp_path / "host" / "agent" / "simulated.db")
    site.keep(host, guest(1).instance_id, (Power.SHUT_OFF, "10.0.0.1", 1))
    site.close()
    monkeypatch.setattr(SimulatedDriver, "boot_id", "another")
    beats.clear()
    booted = ComputeService(of_host, bus, system_clock)
    booted.start()
    try:
        wait_for(lambda: len(beats) > 5)
        assert {(m.asks, m.pending, m.guests[0].power) for m in beats} == {
            (True, (guest(1).instance_id,), Power.SHUT_OFF)
        }
        wait_for(lambda: _delivered(bus, HostAccepted(host, "another", 7, now, 0, (guest(1).instance_id,))))
        wait_for(lambda: beats[-1].guests[0].power is Power.RUNNING)
    finally:
        booted.stop()
        bus.close()
