"""What an agent tells the auditor: what is at the hardware, not what it remembers."""

from pathlib import Path

import pytest

from compute_agent import bridges
from compute_agent.agent import Agent
from compute_agent.bridges import Bridges
from compute_agent.errors import HypervisorUnreachable
from compute_agent.simulated.driver import SimulatedDriver, SimulatedSite
from controller.domain.errors import DriverError
from controller.domain.guests import Desired, Power
from controller.domain.messages import DiskState, GuestState, HostObservation, ObserveHost, ReconcileGuests, RemoveTaps
from controller.domain.names import tap_name
from tests.labs.agent import HOST, guest, instance, work_all


def seen(agent: Agent) -> HostObservation:
    answer = agent.handle(ObserveHost(HOST)).answer
    assert isinstance(answer, HostObservation)
    return answer


def test_observation_has_guests_and_unfinished_work(agent: Agent) -> None:
    agent.handle(ReconcileGuests(HOST, (guest(1, 3),)))
    work_all(agent)
    agent.handle(ReconcileGuests(HOST, (guest(2),)))
    assert seen(agent) == HostObservation(
        HOST,
        guests=(GuestState(instance(1), 3, Power.RUNNING),),
        disks=(DiskState(instance(1), 3),),
        pending=(instance(2),),
    )


def test_what_others_did_at_the_hardware(agent: Agent, site: SimulatedSite) -> None:
    agent.handle(ReconcileGuests(HOST, (guest(1),)))
    work_all(agent)
    site.remove(HOST, instance(1))
    site.keep(HOST, instance(9), (Power.RUNNING, "none", 1))
    assert seen(agent).guests == (GuestState(instance(9), -1, Power.RUNNING),)
    # The ghost is removed as any guest is.
    agent.handle(ReconcileGuests(HOST, (guest(9, 0, Desired.ABSENT),)))
    work_all(agent)
    assert seen(agent).guests == ()
    assert site.guests(HOST) == {}


def test_the_generation_of_what_was_removed_is_remembered(agent: Agent, site: SimulatedSite) -> None:
    """A ghost with the id of a guest that is gone wants a newer command than that one had."""
    agent.handle(ReconcileGuests(HOST, (guest(1, 7, Desired.ABSENT),)))
    work_all(agent)
    site.keep(HOST, instance(1), (Power.SHUT_OFF, "none", 1))
    assert seen(agent).disks == (DiskState(instance(1), 7),)


def test_a_hypervisor_that_cannot_be_asked_is_said(
    agent: Agent, driver: SimulatedDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone() -> None:
        raise HypervisorUnreachable(what="Listing the guests", reason="libvirt went away")

    monkeypatch.setattr(driver, "find_all", gone)
    assert "libvirt went away" in seen(agent).error


def test_taps_that_cannot_be_removed_are_said(
    agent: Agent, driver: SimulatedDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert agent.handle(RemoveTaps(HOST, ("x",))).answer == HostObservation(HOST)

    def refuses(_: object) -> None:
        raise DriverError(what="Removing interface x", reason="busy")

    monkeypatch.setattr(driver, "remove_taps", refuses)
    answer = agent.handle(RemoveTaps(HOST, ("x",))).answer
    assert isinstance(answer, HostObservation)
    assert "busy" in answer.error


def test_only_unused_taps_of_this_cloud_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    removed: list[str] = []
    monkeypatch.setattr(bridges, "_INTERFACES", tmp_path)
    monkeypatch.setattr(bridges, "_delete", removed.append)
    unused, down, used, foreign = (
        tap_name("abcdef01", instance(1 << 40)),
        tap_name("abcdef01", instance(2 << 40)),
        tap_name("abcdef01", instance(3 << 40)),
        tap_name("12345678", instance(4 << 40)),
    )
    for name, carrier in ((unused, "0\n"), (down, None), (used, "1\n"), (foreign, "0\n")):
        (tmp_path / name).mkdir()
        if carrier is not None:
            (tmp_path / name / "carrier").write_text(carrier)
    made = Bridges("abcdef01", "")
    assert made.taps() == {unused, down, used}
    made.remove_unused_taps([unused, down, used, foreign, "eth0"])
    assert sorted(removed) == sorted([unused, down])
