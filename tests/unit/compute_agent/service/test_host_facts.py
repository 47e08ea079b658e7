"""What the compute service tells of its hosts: in heartbeats, and to `pileus join`."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from compute_agent.mac_probe import MacProbe
from compute_agent.service import ComputeService
from controller.bus.bus import Bus
from controller.conf.settings import Settings
from controller.domain.clock import system_clock
from controller.domain.errors import ConfigurationError
from controller.domain.messages import PROBE_PENDING, HostReported
from tests.labs.agent_service import Events
from tests.labs.waiting import wait_for

A = "52:54:00:00:00:0a"


@pytest.fixture
def run(bus: Bus) -> Iterator[Callable[[Settings], ComputeService]]:
    made: list[ComputeService] = []

    def start(settings: Settings) -> ComputeService:
        made.append(ComputeService(settings, bus, system_clock))
        made[-1].start()
        return made[-1]

    yield start
    for service in made:
        service.stop()


def changed(settings: Settings, **compute: object) -> Settings:
    return replace(settings, compute=replace(settings.compute, **compute))  # type: ignore[arg-type]


def newest(events: Events, host: str) -> HostReported | None:
    return next((h for h in reversed(events.heartbeats()) if h.host == host), None)


def test_heartbeats_say_what_the_configuration_says(
    settings: Settings, events: Events, run: Callable[[Settings], ComputeService], tmp_path: Path
) -> None:
    macs = tmp_path / "macs"
    macs.write_text(f"sim-0001 {A}\n")
    options = {"labels": ("ssd",), "zone": "z1", "simulated_macs_file": str(macs), "mac_probe_every_s": 0.1}
    run(changed(settings, **options))

    def told(host: str, allowed: tuple[str, ...]) -> bool:
        beat = newest(events, host)
        return beat is not None and (beat.labels, beat.zone, beat.disk_backends, beat.allowed_macs) == (
            ("ssd",),
            "z1",
            ("simulated",),
            allowed,
        )

    wait_for(lambda: told("sim-0001", (A,)) and told("sim-0002", ()))
    macs.write_text("rubbish\n")
    wait_for(lambda: "line 1" in getattr(newest(events, "sim-0001"), "probe_error", ""))
    assert told("sim-0001", (A,))
    macs.write_text("")
    wait_for(lambda: told("sim-0001", ()))


def test_a_probe_that_hangs_delays_no_heartbeat_and_no_stop(
    settings: Settings,
    events: Events,
    run: Callable[[Settings], ComputeService],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = threading.Event()

    def hang(stopping: Callable[[], bool]) -> dict[str, tuple[str, ...]]:
        asked.set()
        wait_for(stopping)
        return {}

    monkeypatch.setattr("compute_agent.service.make_probe", lambda *_: MacProbe(hang))
    service = run(settings)
    assert asked.wait(10)
    wait_for(lambda: len([h for h in events.heartbeats() if h.host == "sim-0001"]) > 2)
    beat = newest(events, "sim-0001")
    assert beat is not None
    assert (beat.allowed_macs, beat.probe_error) == (None, PROBE_PENDING)
    service.stop()


def test_a_probe_that_breaks_is_asked_again(
    settings: Settings,
    events: Events,
    run: Callable[[Settings], ComputeService],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []

    def fail(_: object) -> dict[str, tuple[str, ...]]:
        asked.append(1)
        if len(asked) < 3:
            raise RuntimeError("no")
        return {"sim-0001": (A,)}

    monkeypatch.setattr("compute_agent.service.make_probe", lambda *_: MacProbe(fail))
    run(changed(settings, mac_probe_every_s=0.1))
    wait_for(lambda: getattr(newest(events, "sim-0001"), "allowed_macs", None) == (A,))


def test_hosts_describe_themselves_before_anything_runs(settings: Settings, bus: Bus, tmp_path: Path) -> None:
    macs = tmp_path / "macs"
    macs.write_text(f"sim-0002 {A}\n")
    facts = ComputeService(changed(settings, simulated_macs_file=str(macs)), bus, system_clock).describe()
    assert [(f.host, f.allowed_macs) for f in facts] == [("sim-0001", ()), ("sim-0002", (A,)), ("sim-0003", ())]
    assert {(f.vcpus, f.hypervisor, f.guests) for f in facts} == {(32, "simulated", ())}


def test_a_wrong_probe_ends_the_start(settings: Settings, bus: Bus) -> None:
    wrong = changed(settings, driver="libvirt", mac_probe="probe")
    with pytest.raises(ConfigurationError, match="not absolute"):
        ComputeService(wrong, bus, system_clock).start()
