"""What an agent makes of commands, whatever happens to it on the way."""

from collections.abc import Callable

import pytest

from compute_agent.agent import Agent
from compute_agent.commands import Handled
from compute_agent.errors import WorkAbandoned
from compute_agent.journal.journal import Journal
from compute_agent.simulated.driver import SimulatedDriver, SimulatedSite
from controller.domain.errors import Unavailable
from controller.domain.guests import Desired, OffCause, Power
from controller.domain.messages import (
    GuestSpec,
    HostAccepted,
    ReconcileGuests,
)
from controller.domain.states import Event
from tests.labs.agent import HOST, NOW, guest, instance, work_all
from tests.labs.bus import FakeBus


class Killed(BaseException):
    """The process dies here."""


def order(agent: Agent, *specs: GuestSpec) -> Handled:
    return agent.handle(ReconcileGuests(HOST, specs))


def events(bus: FakeBus) -> list[tuple[str, int, Event]]:
    return [(r.instance_id, r.generation, r.event) for r in bus.reports()]


def test_built_twice_is_one_guest(agent: Agent, driver: SimulatedDriver, bus: FakeBus) -> None:
    order(agent, guest())
    order(agent, guest())
    work_all(agent)
    order(agent, guest())
    work_all(agent)
    agent.report()
    assert driver.list_guests() == {instance(1): Power.RUNNING}
    assert driver.console(instance(1), 100) == b"GUEST-UP 10.0.0.1\n"
    assert events(bus) == [(instance(1), 1, Event.RUNNING)]


def test_a_command_that_was_done_is_reported_again(agent: Agent, bus: FakeBus) -> None:
    for _ in range(2):
        order(agent, guest())
        work_all(agent)
        agent.report()
    agent.report()
    assert events(bus) == [(instance(1), 1, Event.RUNNING)] * 2


def test_the_whole_life(agent: Agent, driver: SimulatedDriver, bus: FakeBus) -> None:
    steps = [
        (Desired.RUNNING, False, Event.RUNNING),
        (Desired.SHUT_OFF, False, Event.SHUT_OFF),
        (Desired.RUNNING, False, Event.RUNNING),
        (Desired.RUNNING, True, Event.RUNNING),
        (Desired.ABSENT, False, Event.GONE),
    ]
    boots = []
    for generation, (desired, reboot, _) in enumerate(steps, 1):
        order(agent, guest(1, generation, desired, reboot=reboot))
        work_all(agent)
        agent.report()
        boots.append(driver.console(instance(1), 1000).count(b"GUEST-UP"))
    assert events(bus) == [(instance(1), g, e) for g, (_, _, e) in enumerate(steps, 1)]
    assert boots == [1, 1, 2, 3, 0]
    assert driver.list_guests() == {}


def test_a_deleted_guest_is_not_brought_back(agent: Agent, driver: SimulatedDriver) -> None:
    order(agent, guest(1, 2, Desired.ABSENT))
    work_all(agent)
    agent.report()
    order(agent, guest(1, 1))
    work_all(agent)
    assert driver.list_guests() == {}


def test_only_the_newest_request_is_carried_out(agent: Agent, driver: SimulatedDriver, bus: FakeBus) -> None:
    order(agent, guest(1, 1), guest(2, 1))
    order(agent, guest(1, 2, Desired.ABSENT))
    work_all(agent)
    agent.report()
    assert driver.list_guests() == {instance(2): Power.RUNNING}
    assert sorted(events(bus)) == [(instance(1), 2, Event.GONE), (instance(2), 1, Event.RUNNING)]


def test_desired_state_of_a_newer_release_is_left_alone(
    agent: Agent, driver: SimulatedDriver, journal: Journal, bus: FakeBus
) -> None:
    """In a command, and in the journal that a newer agent left behind; the other guests are looked after."""
    order(agent, guest(1, 1), guest(2, 1))
    work_all(agent)
    order(agent, guest(1, 2, Desired("PAUSED")), guest(2, 2, Desired.SHUT_OFF))
    journal.record(HOST, [guest(1, 3, Desired("MIGRATED"))])
    work_all(agent)
    agent.report()
    assert driver.list_guests() == {instance(1): Power.RUNNING, instance(2): Power.SHUT_OFF}
    assert sorted(events(bus))[-1] == (instance(2), 2, Event.SHUT_OFF)
    assert [s.desired for s in journal.pending(HOST)] == ["MIGRATED"]
    order(agent, guest(1, 4, Desired.SHUT_OFF))
    work_all(agent)
    assert driver.list_guests()[instance(1)] is Power.SHUT_OFF


def test_newer_request_during_the_work_is_next(
    agent: Agent, driver: SimulatedDriver, bus: FakeBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawn = driver.spawn

    def spawn_while_deleted(spec: object) -> None:
        spawn(spec)  # type: ignore[arg-type]
        order(agent, guest(1, 2, Desired.ABSENT))

    monkeypatch.setattr(driver, "spawn", spawn_while_deleted)
    order(agent, guest())
    assert agent.work(instance(1)) == 0
    assert agent.work(instance(1)) is None
    agent.report()
    assert driver.list_guests() == {}
    assert events(bus) == [(instance(1), 2, Event.GONE)]


def test_an_error_is_reported_with_its_reason(agent: Agent, bus: FakeBus) -> None:
    order(agent, guest(image=None))
    work_all(agent)
    agent.report()
    (report,) = bus.reports()
    assert report.event is Event.FAILED
    assert "no image" in report.reason


def test_what_the_journal_could_not_take_is_not_done_again(
    agent: Agent, driver: SimulatedDriver, journal: Journal, bus: FakeBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    order(agent, guest())
    work_all(agent)
    order(agent, guest(1, 2, reboot=True))
    with monkeypatch.context() as full:

        def no_room(*_: object) -> bool:
            raise Unavailable(what="The agent's journal", reason="database or disk is full")

        full.setattr(journal, "finish", no_room)
        for _ in range(3):
            with pytest.raises(Unavailable):
                agent.work(instance(1))
    assert agent.work(instance(1)) is None
    agent.report()
    assert driver.console(instance(1), 1000).count(b"GUEST-UP") == 2
    assert events(bus) == [(instance(1), 2, Event.RUNNING)]
    order(agent, guest(1, 3, reboot=True))
    work_all(agent)
    assert driver.console(instance(1), 1000).count(b"GUEST-UP") == 3


def test_a_simulated_guest_that_cannot_be_kept_waits(agent: Agent, site: SimulatedSite, bus: FakeBus) -> None:
    order(agent, guest())
    site.close()
    with pytest.raises(Unavailable):
        agent.work(instance(1))
    agent.report()
    assert bus.reports() == []


def test_abandoned_work_stays_in_the_journal(
    new_agent: Callable[[], Agent], driver: SimulatedDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = new_agent()
    order(agent, guest())
    with monkeypatch.context() as stopping:

        def abandoned(_: object) -> None:
            raise WorkAbandoned

        stopping.setattr(driver, "spawn", abandoned)
        with pytest.raises(WorkAbandoned):
            agent.work(instance(1))
    work_all(new_agent())
    assert driver.list_guests() == {instance(1): Power.RUNNING}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("place", ["spawn", "finish", "unreported", "send", "mark_reported"])
def test_next_run_continues_after_a_kill_anywhere(
    place: str,
    when: str,
    new_agent: Callable[[], Agent],
    driver: SimulatedDriver,
    journal: Journal,
    bus: FakeBus,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    victim = next(o for o in (driver, journal, bus) if hasattr(o, place))
    real = getattr(victim, place)

    def dies(*args: object, **more: object) -> None:
        if when == "after":
            real(*args, **more)
        raise Killed

    first = new_agent()
    order(first, guest())
    with monkeypatch.context() as killing:
        killing.setattr(victim, place, dies)
        with pytest.raises(Killed):
            work_all(first)
            first.report()
    second = new_agent()
    work_all(second)
    second.report()
    assert driver.list_guests() == {instance(1): Power.RUNNING}
    assert driver.console(instance(1), 100).count(b"GUEST-UP") == 1
    assert set(events(bus)) == {(instance(1), 1, Event.RUNNING)}
    assert journal.unreported(HOST) == []


def test_a_guest_that_powers_off_is_noticed_once(agent: Agent, driver: SimulatedDriver, bus: FakeBus) -> None:
    order(agent, guest(), guest(2))
    work_all(agent)
    agent.report()
    bus.sent.clear()
    driver.power_lost(instance(1))
    assert [agent.watch(), agent.watch()] == [1, 0]
    agent.report()
    assert events(bus) == [(instance(1), 1, Event.SHUT_OFF)]
    assert "powered itself off" in bus.reports()[0].reason


@pytest.mark.parametrize("cause", list(OffCause))
def test_cause_of_a_shutdown_is_reported(agent: Agent, driver: SimulatedDriver, bus: FakeBus, cause: OffCause) -> None:
    order(agent, guest(1))
    work_all(agent)  # it booted and went off before anything was reported
    driver.power_lost(instance(1), cause)
    assert agent.watch() == 1
    assert agent.report()
    (report,) = bus.reports()
    assert (report.event, report.cause) == (Event.SHUT_OFF, cause.value)
    order(agent, guest(1, 2))
    work_all(agent)
    assert agent.report()
    assert bus.reports()[-1].cause == ""


def test_a_guest_whose_disk_is_gone_is_not_made_again_from_its_image(
    agent: Agent, driver: SimulatedDriver, bus: FakeBus
) -> None:
    order(agent, guest(1, 5, may_create=False))
    work_all(agent)
    assert agent.report()
    assert driver.list_guests() == {}
    assert [(r.event, r.reason) for r in bus.reports()] == [
        (Event.FAILED, "Starting the guest failed on this host: its disk is gone.")
    ]


def test_vanished_and_started_guests_are_noticed(agent: Agent, driver: SimulatedDriver, bus: FakeBus) -> None:
    order(agent, guest(), guest(2))
    work_all(agent)
    order(agent, guest(2, 2, Desired.SHUT_OFF))
    work_all(agent)
    agent.report()
    bus.sent.clear()
    driver.destroy(instance(1))
    driver.start(guest(2))
    assert agent.watch() == 2
    agent.report()
    assert set(events(bus)) == {(instance(1), 1, Event.SHUT_OFF), (instance(2), 2, Event.RUNNING)}


def test_after_a_boot_of_the_host_its_guests_are_started(
    new_agent: Callable[[], Agent], driver: SimulatedDriver, bus: FakeBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = new_agent()
    order(agent, guest(1), guest(2), guest(3))
    work_all(agent)
    order(agent, guest(2, 2, Desired.SHUT_OFF), guest(3, 2, Desired.ABSENT))
    work_all(agent)
    agent.report()
    driver.power_lost(instance(1))
    monkeypatch.setattr(SimulatedDriver, "boot_id", "another")
    rebooted = new_agent()
    assert rebooted.watch() == 0
    rebooted.handle(HostAccepted(HOST, "another", 1, NOW.isoformat(), 0, (instance(1), instance(2))))
    work_all(rebooted)
    rebooted.report()
    assert driver.list_guests() == {instance(1): Power.RUNNING, instance(2): Power.SHUT_OFF}
    assert events(bus)[-1] == (instance(1), 1, Event.RUNNING)
    assert new_agent().pending() == []


def test_guests_of_a_lost_journal_are_taken_in(
    driver: SimulatedDriver, new_agent: Callable[[], Agent], bus: FakeBus
) -> None:
    driver.spawn(guest(5))
    agent = new_agent()
    order(agent, guest(5, 7, Desired.ABSENT))
    work_all(agent)
    agent.report()
    assert driver.list_guests() == {}
    assert events(bus) == [(instance(5), 7, Event.GONE)]
