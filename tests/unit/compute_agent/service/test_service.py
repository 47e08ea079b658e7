"""The compute service on the in-memory bus: commands in, reports out, across a restart."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest

from compute_agent.service import ComputeService, host_names
from compute_agent.simulated.driver import SimulatedDriver
from controller.bus.bus import Bus
from controller.conf.settings import Compute, Settings
from controller.domain.clock import system_clock
from controller.domain.errors import BusUnavailable
from controller.domain.guests import Desired, Power
from controller.domain.messages import ConsoleRead, Message, ReadConsole, ReconcileGuests
from controller.domain.states import Event
from tests.labs.agent import guest, instance
from tests.labs.agent_service import Events
from tests.labs.waiting import wait_for


@pytest.fixture
def new_service(settings: Settings, bus: Bus) -> Iterator[Callable[[], ComputeService]]:
    made: list[ComputeService] = []

    def make() -> ComputeService:
        made.append(ComputeService(settings, bus, system_clock))
        made[-1].start()
        return made[-1]

    yield make
    for service in made:
        service.stop()


def test_commands_are_carried_out_and_reported(
    settings: Settings, bus: Bus, events: Events, new_service: Callable[[], ComputeService]
) -> None:
    new_service()
    hosts = host_names(settings)
    assert hosts == ("sim-0001", "sim-0002", "sim-0003")
    for number, host in enumerate(hosts):
        bus.send(ReconcileGuests(host, tuple(guest(10 * number + n) for n in range(5))))
    expected = {(h, instance(10 * i + n), 1, Event.RUNNING) for i, h in enumerate(hosts) for n in range(5)}
    wait_for(lambda: events.reports() == expected)
    wait_for(lambda: {len(h.guests) for h in events.heartbeats()[-3:]} == {5})
    answer = bus.call(ReadConsole(hosts[1], instance(10)), 5)
    assert isinstance(answer, ConsoleRead)
    assert answer.data


def test_what_was_not_done_is_done_after_a_restart(
    settings: Settings, bus: Bus, events: Events, new_service: Callable[[], ComputeService]
) -> None:
    first = new_service()
    host = host_names(settings)[0]
    bus.send(ReconcileGuests(host, (guest(1), guest(2))))
    wait_for(lambda: len(events.reports()) == 2)
    first.stop()
    bus.send(ReconcileGuests(host, (guest(1, 2, Desired.ABSENT), guest(3))))
    new_service()
    expected = {(host, instance(1), 2, Event.GONE), (host, instance(3), 1, Event.RUNNING)}
    wait_for(lambda: expected <= events.reports())
    wait_for(lambda: [g.instance_id for g in events.heartbeats()[-1].guests if g.power is Power.RUNNING] != [])


def test_stop_takes_no_longer_than_unfinished_work(
    settings: Settings, bus: Bus, new_service: Callable[[], ComputeService], monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = replace(settings, compute=replace(settings.compute, simulated_boot_s=600.0))
    service = ComputeService(slow, bus, system_clock)
    service.start()
    host = host_names(slow)[0]
    bus.send(ReconcileGuests(host, tuple(guest(n) for n in range(50))))
    wait_for(lambda: service._journal is not None and len(service._journal.pending(host)) == 50)
    began = time.monotonic()
    service.stop()
    assert time.monotonic() - began < 5


def test_reports_go_on_after_an_unexpected_error(
    settings: Settings,
    bus: Bus,
    events: Events,
    new_service: Callable[[], ComputeService],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failed: list[Sequence[Message]] = []
    send_all = bus.send_all

    def fail_once(messages: Sequence[Message]) -> None:
        if messages and not failed:
            failed.append(messages)
            raise AttributeError("'NoneType' object has no attribute 'send_method'")
        send_all(messages)

    monkeypatch.setattr(bus, "send_all", fail_once)
    new_service()
    host = host_names(settings)[0]
    bus.send(ReconcileGuests(host, (guest(1),)))
    wait_for(lambda: events.reports() == {(host, instance(1), 1, Event.RUNNING)})
    assert failed


def test_heartbeats_go_on_while_a_host_is_tidied(
    events: Events, new_service: Callable[[], ComputeService], monkeypatch: pytest.MonkeyPatch
) -> None:
    tidying, tidied = threading.Event(), threading.Event()

    def tidy(_: SimulatedDriver) -> None:
        tidying.set()
        assert tidied.wait(15)

    monkeypatch.setattr("compute_agent.service._TIDY_EVERY_S", 0.05)
    monkeypatch.setattr(SimulatedDriver, "tidy", tidy)
    try:
        new_service()
        assert tidying.wait(15)
        heard = len(events.heartbeats())
        wait_for(lambda: len(events.heartbeats()) > heard + 6)
    finally:
        tidied.set()


def test_a_broker_that_is_away_is_asked_once_at_the_end(
    settings: Settings, bus: Bus, new_service: Callable[[], ComputeService], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = new_service()
    wait_for(lambda: service._consuming)
    asked: list[Message] = []

    def send(message: Message) -> None:
        asked.append(message)
        raise BusUnavailable(what="The message bus", reason="away")

    def send_all(messages: Sequence[Message]) -> None:
        if messages:
            raise BusUnavailable(what="The message bus", reason="away")

    monkeypatch.setattr(bus, "send_all", send_all)
    for host in host_names(settings):
        bus.send(ReconcileGuests(host, (guest(1),)))
    monkeypatch.setattr(bus, "send", send)
    assert service._journal is not None
    wait_for(lambda: all(service._journal.unreported(h) for h in host_names(settings)))  # type: ignore[union-attr]
    service.stop()
    assert len(asked) == 1


def test_destroy_removes_everything_when_nothing_runs(
    settings: Settings, bus: Bus, events: Events, new_service: Callable[[], ComputeService]
) -> None:
    service = new_service()
    bus.send(ReconcileGuests(host_names(settings)[0], (guest(1),)))
    wait_for(lambda: len(events.reports()) == 1)
    service.stop()
    ComputeService(settings, bus, system_clock).destroy()
    assert list(settings.state_dir.iterdir()) == []
    ComputeService(settings, bus, system_clock).destroy()


def test_hundreds_of_hosts_in_one_process(settings: Settings, bus: Bus, events: Events) -> None:
    many = replace(settings, compute=Compute(driver="simulated", simulated_hosts=300, heartbeat_s=60))
    service = ComputeService(many, bus, system_clock)
    service.start()
    try:
        for host in host_names(many):
            number = int(host[-4:])
            bus.send(ReconcileGuests(host, tuple(guest(100 * number + n) for n in range(4))))
        wait_for(lambda: len(events.reports()) == 1200)
    finally:
        service.stop()
