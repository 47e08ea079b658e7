"""Which commands an agent carries out: epochs, expiry, boots that no controller has accepted yet."""

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from compute_agent.agent import Agent
from compute_agent.heartbeat import HostOptions
from compute_agent.journal.journal import Journal
from compute_agent.simulated.driver import SimulatedDriver
from controller.domain.guests import Desired, Power
from controller.domain.messages import GuestSpec, HostAccepted, HostReported, ReconcileGuests
from tests.labs.agent import HOST, NOW, guest, instance, work_all
from tests.labs.bus import FakeBus

BOOT = f"simulated-{HOST}"


def accept(agent: Agent, epoch: int = 1, *runs: int, boot_id: str = BOOT, **more: object) -> None:
    message = HostAccepted(HOST, boot_id, epoch, NOW.isoformat(), 0, tuple(map(instance, runs)))
    agent.handle(replace(message, **more))  # type: ignore[arg-type]


def order(agent: Agent, epoch: int, *specs: GuestSpec, expires_in_s: float = 600) -> None:
    until = (NOW + timedelta(seconds=expires_in_s)).isoformat()
    agent.handle(ReconcileGuests(HOST, specs, epoch, until))
    work_all(agent)


def beat(agent: Agent, bus: FakeBus) -> HostReported:
    agent.heartbeat()
    message = bus.sent[-1]
    assert isinstance(message, HostReported)
    return message


@pytest.fixture
def boot(driver: SimulatedDriver, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """The host loses its power, and is booted."""

    def power_lost(boot_id: str) -> None:
        for instance_id in driver.list_guests():
            driver.power_lost(instance_id)
        monkeypatch.setattr(SimulatedDriver, "boot_id", boot_id)

    return power_lost


def test_only_the_own_epoch_is_obeyed(agent: Agent, driver: SimulatedDriver) -> None:
    accept(agent, 5)
    order(agent, 4, guest(1))
    order(agent, 6, guest(2))
    assert driver.list_guests() == {}
    order(agent, 5, guest(3))
    assert driver.list_guests() == {instance(3): Power.RUNNING}


def test_the_epoch_outlives_the_agent(new_agent: Callable[[], Agent], driver: SimulatedDriver, bus: FakeBus) -> None:
    accept(new_agent(), 5)
    restarted = new_agent()
    assert beat(restarted, bus).epoch == 5
    order(restarted, 4, guest(1))
    order(restarted, 5, guest(2))  # a plain restart needs no answer
    assert driver.list_guests() == {instance(2): Power.RUNNING}


def test_an_agent_without_an_epoch_obeys_only_old_senders(agent: Agent, driver: SimulatedDriver, bus: FakeBus) -> None:
    order(agent, 3, guest(1))
    order(agent, 0, guest(2))
    assert driver.list_guests() == {instance(2): Power.RUNNING}
    assert beat(agent, bus).asks
    accept(agent, 3)
    order(agent, 0, guest(3))
    assert instance(3) not in driver.list_guests()
    accept(agent, 3, old_senders=True)
    order(agent, 0, guest(3))
    assert instance(3) in driver.list_guests()


def test_an_agent_that_starts_anew_among_services_of_01_obeys_them(
    new_agent: Callable[[], Agent], driver: SimulatedDriver
) -> None:
    """They never answer it; what it was told last counts."""
    accept(new_agent(), 3, old_senders=True)
    order(new_agent(), 0, guest(1))
    assert instance(1) in driver.list_guests()
    accept(new_agent(), 3, old_senders=False)
    order(new_agent(), 0, guest(2))
    assert instance(2) not in driver.list_guests()


def test_an_expired_command_is_dropped(agent: Agent, driver: SimulatedDriver) -> None:
    accept(agent)
    order(agent, 1, guest(1), expires_in_s=-61)
    order(agent, 1, guest(2), expires_in_s=-50)
    assert driver.list_guests() == {instance(2): Power.RUNNING}


@pytest.mark.parametrize("wrong_h", [-30, 30])
def test_a_wrong_clock_is_seen_and_stops_nothing(
    wrong_h: int, driver: SimulatedDriver, journal: Journal, bus: FakeBus
) -> None:
    agent = Agent(HOST, driver, journal, bus, lambda: NOW + timedelta(hours=wrong_h), grace_s=0, monotonic=lambda: 7.0)
    agent.recover()
    accept(agent)
    order(agent, 1, guest(1))
    order(agent, 1, guest(2), expires_in_s=-100)
    assert driver.list_guests() == {instance(1): Power.RUNNING}
    assert beat(agent, bus).remarks == ("its clock differs from the controllers' by more than a day",)


def test_late_answer_does_not_set_the_time(driver: SimulatedDriver, journal: Journal, bus: FakeBus) -> None:
    ticks = [0.0]
    agent = Agent(HOST, driver, journal, bus, lambda: NOW, grace_s=0, monotonic=lambda: ticks[0])
    agent.recover()
    accept(agent, sequence=beat(agent, bus).sequence)
    assert not beat(agent, bus).asks
    ticks[0] = 3600.5
    asking = beat(agent, bus)
    assert asking.asks  # clocks drift
    ticks[0] += 3600
    accept(agent, sequence=asking.sequence)  # an hour under way
    order(agent, 1, guest(1), expires_in_s=7000)
    assert driver.list_guests() == {}


def test_after_a_boot_only_what_the_answer_names_is_started(
    new_agent: Callable[[], Agent], driver: SimulatedDriver, bus: FakeBus, boot: Callable[[str], None]
) -> None:
    agent = new_agent()
    accept(agent)
    order(agent, 1, guest(1), guest(2), guest(3))
    order(agent, 1, guest(3, 2, Desired.SHUT_OFF))
    boot("b2")
    rebooted = new_agent()
    order(rebooted, 1, guest(4), guest(2, 2))  # from before the boot
    off = dict.fromkeys(map(instance, (1, 2, 3)), Power.SHUT_OFF)
    assert driver.list_guests() == off
    waiting = beat(rebooted, bus)
    assert (waiting.asks, waiting.pending) == (True, (instance(1), instance(2)))
    assert waiting.remarks == ("2 guests wait until a controller has accepted this boot of the host",)
    accept(rebooted, 1, 1, boot_id=BOOT)  # the answer to the boot before, or of another host's
    accept(rebooted, 0, 1, boot_id="b2")  # of an older epoch
    work_all(rebooted)
    assert driver.list_guests() == off
    for _ in range(2):
        accept(rebooted, 1, 1, boot_id="b2")
        work_all(rebooted)
    assert driver.list_guests() == off | {instance(1): Power.RUNNING}
    assert beat(rebooted, bus).remarks == ()
    assert new_agent().pending() == []


def test_killed_before_the_answer_is_written_the_boot_waits_again(
    new_agent: Callable[[], Agent], driver: SimulatedDriver, boot: Callable[[str], None]
) -> None:
    agent = new_agent()
    accept(agent)
    order(agent, 1, guest(1))
    boot("b2")
    for _ in range(3):
        work_all(new_agent())
    assert driver.list_guests() == {instance(1): Power.SHUT_OFF}
    accept(new_agent(), 1, 1, boot_id="b2")
    work_all(new_agent())  # killed after it was written, before anything was started
    assert driver.list_guests() == {instance(1): Power.RUNNING}


def test_new_epoch_drops_older_requests(agent: Agent, driver: SimulatedDriver) -> None:
    accept(agent, 5)
    until = (NOW + timedelta(seconds=600)).isoformat()
    agent.handle(ReconcileGuests(HOST, (guest(1), guest(2)), 5, until))
    accept(agent, 7)
    work_all(agent)
    assert driver.list_guests() == {}
    order(agent, 7, guest(1))  # the same request, if it is still there
    assert driver.list_guests() == {instance(1): Power.RUNNING}


def test_after_a_boot_another_epoch_starts_what_it_names(
    new_agent: Callable[[], Agent], driver: SimulatedDriver, boot: Callable[[str], None]
) -> None:
    agent = new_agent()
    accept(agent, 5)
    order(agent, 5, guest(1), guest(2))
    boot("b2")
    rebooted = new_agent()
    accept(rebooted, 7, 1, boot_id="b2")
    work_all(rebooted)
    assert driver.list_guests() == {instance(1): Power.RUNNING, instance(2): Power.SHUT_OFF}


def test_after_a_boot_another_epoch_does_not_remove_what_it_names(
    new_agent: Callable[[], Agent], driver: SimulatedDriver, boot: Callable[[str], None]
) -> None:
    """What waits was wished in an older epoch: the database was restored, and these are to run."""
    agent = new_agent()
    accept(agent, 5)
    order(agent, 5, guest(1), guest(2), guest(3))
    until = (NOW + timedelta(seconds=600)).isoformat()
    options = guest(1, 2, Desired.ABSENT, keep_disk=False), guest(2, 2, Desired.SHUT_OFF)
    agent.handle(ReconcileGuests(HOST, options, 5, until))
    boot("b2")
    rebooted = new_agent()
    accept(rebooted, 7, 1, 2, 3, boot_id="b2")
    work_all(rebooted)
    assert driver.list_guests() == {
        instance(1): Power.SHUT_OFF,
        instance(2): Power.SHUT_OFF,
        instance(3): Power.RUNNING,
    }


def test_what_another_epoch_dropped_is_no_work_after_a_boot(
    new_agent: Callable[[], Agent], driver: SimulatedDriver, journal: Journal, boot: Callable[[str], None]
) -> None:
    agent = new_agent()
    accept(agent, 5)
    order(agent, 5, guest(1), guest(2))
    until = (NOW + timedelta(seconds=600)).isoformat()
    agent.handle(ReconcileGuests(HOST, (guest(1, 2, Desired.ABSENT, keep_disk=False),), 5, until))
    accept(agent, 7)
    boot("b2")
    rebooted = new_agent()
    assert journal.unfinished(HOST) == {instance(2)}
    accept(rebooted, 7, 1, 2, boot_id="b2")
    work_all(rebooted)
    assert driver.list_guests() == {instance(1): Power.SHUT_OFF, instance(2): Power.RUNNING}
    order(rebooted, 7, guest(1, 2, Desired.ABSENT))  # if it still is wished
    assert instance(1) not in driver.list_guests()


def test_a_restart_after_the_expiry_asks_before_it_begins(
    new_agent: Callable[[], Agent], driver: SimulatedDriver, journal: Journal, bus: FakeBus
) -> None:
    agent = new_agent()
    accept(agent)
    until = (NOW + timedelta(seconds=600)).isoformat()
    agent.handle(ReconcileGuests(HOST, (guest(1), guest(2)), 1, until))
    late = Agent(HOST, driver, journal, bus, lambda: NOW + timedelta(hours=1), grace_s=0)
    late.recover()
    work_all(late)
    assert driver.list_guests() == {}
    accept(late, 1, 2)
    work_all(late)
    assert driver.list_guests() == {instance(2): Power.RUNNING}


def test_a_held_guest_waits_for_an_answer(
    new_agent: Callable[[], Agent], driver: SimulatedDriver, journal: Journal, bus: FakeBus
) -> None:
    """Killed before the answer came, and the clock set right: what waits is not forgotten."""
    agent = new_agent()
    accept(agent)
    until = (NOW + timedelta(seconds=600)).isoformat()
    agent.handle(ReconcileGuests(HOST, (guest(1),), 1, until))
    Agent(HOST, driver, journal, bus, lambda: NOW + timedelta(hours=1), grace_s=0).recover()
    restarted = new_agent()
    work_all(restarted)
    assert driver.list_guests() == {}
    accept(restarted, 1, 1)
    work_all(restarted)
    assert driver.list_guests() == {instance(1): Power.RUNNING}


def test_an_answer_to_an_earlier_run_of_the_agent_is_none(
    new_agent: Callable[[], Agent], driver: SimulatedDriver, journal: Journal, bus: FakeBus
) -> None:
    """It may have waited in the queue while the agent was away, and says neither what runs now nor the time."""
    agent = new_agent()
    accept(agent)
    until = (NOW + timedelta(seconds=600)).isoformat()
    agent.handle(ReconcileGuests(HOST, (guest(1),), 1, until))
    asked = beat(agent, bus).sequence
    late = Agent(HOST, driver, journal, bus, lambda: NOW + timedelta(hours=1), grace_s=0)
    late.recover()
    beat(late, bus)
    accept(late, 1, 1, sequence=asked)
    work_all(late)
    assert driver.list_guests() == {}
    assert beat(late, bus).asks


def test_started_without_an_answer_only_where_that_is_configured(
    new_agent: Callable[[], Agent],
    driver: SimulatedDriver,
    journal: Journal,
    bus: FakeBus,
    boot: Callable[[str], None],
) -> None:
    agent = new_agent()
    accept(agent)
    order(agent, 1, guest(1))
    boot("b2")
    ticks = [0.0]
    for after_s, at, starts in ((0.0, 1e9, False), (120.0, 1.0, False), (120.0, 121.0, True)):
        ticks[0] = 0.0
        options = HostOptions(start_unconfirmed_after_s=after_s)
        waits = Agent(HOST, driver, journal, bus, lambda: NOW, grace_s=0, options=options, monotonic=lambda: ticks[0])
        waits.recover()
        ticks[0] = at
        assert waits.start_unconfirmed() == starts
        work_all(waits)
        assert driver.list_guests() == {instance(1): Power.RUNNING if starts else Power.SHUT_OFF}
    assert beat(waits, bus).remarks == ("1 guests were started though no controller had accepted this boot",)


def test_heartbeat_names_unfinished_work(agent: Agent, driver: SimulatedDriver, bus: FakeBus) -> None:
    """A guest that is being made in the old epoch is not told as gone."""
    accept(agent, 5)
    until = (NOW + timedelta(seconds=600)).isoformat()
    agent.handle(ReconcileGuests(HOST, (guest(1),), 5, until))
    seen: list[HostReported] = []
    spawn = driver.spawn

    def spawn_while_removed(spec: GuestSpec) -> None:
        accept(agent, 7)
        seen.append(beat(agent, bus))
        spawn(spec)

    driver.spawn = spawn_while_removed  # type: ignore[method-assign]
    agent.work(instance(1))
    assert [(m.epoch, m.guests, m.pending) for m in seen] == [(7, (), (instance(1),))]
    assert [g.instance_id for g in beat(agent, bus).guests] == [instance(1)]


def test_a_journal_of_release_0_1_is_taken_over(tmp_path: Path) -> None:
    file = tmp_path / "old.db"
    with sqlite3.connect(file) as db:
        db.executescript(
            """CREATE TABLE guests (host TEXT NOT NULL, instance TEXT NOT NULL, generation INTEGER NOT NULL, spec TEXT,
            position INTEGER NOT NULL, pending INTEGER NOT NULL, done_generation INTEGER NOT NULL DEFAULT -1,
            built INTEGER NOT NULL DEFAULT 0, event TEXT, reason TEXT NOT NULL DEFAULT '',
            reported INTEGER NOT NULL DEFAULT 1, gone_at REAL, PRIMARY KEY (host, instance)) WITHOUT ROWID;
            INSERT INTO guests (host, instance, generation, position, pending, done_generation, event)
            VALUES ('h', 'i', 3, 1, 0, 3, 'RUNNING');"""
        )
    db.close()
    for _ in range(2):
        journal = Journal(file)
        assert journal.generations("h") == {"i": 3}
        assert (journal.accepted("h"), journal.waiting("h")) == ((0, ""), 0)
        journal.close()


def test_a_disk_is_kept_unless_its_owner_deletes_it(driver: SimulatedDriver, journal: Journal, bus: FakeBus) -> None:
    now = [NOW]
    agent = Agent(HOST, driver, journal, bus, lambda: now[0], grace_s=0, monotonic=lambda: now[0].timestamp())
    agent.recover()
    accept(agent)
    order(agent, 1, guest(1), guest(2), guest(3))
    order(agent, 1, *(guest(n, 2, Desired.ABSENT, keep_disk=n != 3) for n in (1, 2, 3)))
    assert driver.list_guests() == {}
    assert [(k.instance_id, k.removed_at) for k in driver.kept()] == [
        (instance(1), NOW.isoformat()),
        (instance(2), NOW.isoformat()),
    ]
    assert beat(agent, bus).remarks == (f"disks of removed guests are kept: {instance(1)} {instance(2)}",)
    order(agent, 1, guest(2, 3, Desired.ABSENT, keep_disk=False))  # now its owner deletes it
    assert [k.instance_id for k in driver.kept()] == [instance(1)]
    now[0] += timedelta(days=6)
    agent.tidy()
    assert len(driver.kept()) == 1
    now[0] += timedelta(days=2)
    agent.tidy()
    assert driver.kept() == ()


def test_a_wrong_clock_prunes_no_disk(driver: SimulatedDriver, journal: Journal, bus: FakeBus) -> None:
    now = [NOW]
    agent = Agent(HOST, driver, journal, bus, lambda: now[0], grace_s=0, monotonic=lambda: 0.0)
    agent.recover()
    accept(agent)
    order(agent, 1, guest(1))
    order(agent, 1, guest(1, 2, Desired.ABSENT))
    now[0] += timedelta(days=365)
    agent.tidy()
    assert len(driver.kept()) == 1


@pytest.mark.parametrize(
    "until",
    ["9999-12-31T23:59:59+00:00", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "tomorrow", "2024-05-01"],
)
def test_an_odd_expiry_does_not_keep_the_agent_from_its_next_start(
    new_agent: Callable[[], Agent], driver: SimulatedDriver, bus: FakeBus, until: str
) -> None:
    """A sender of release 0.1 is believed without a look at it; the journal keeps it until the wish is carried out."""
    new_agent().handle(ReconcileGuests(HOST, (guest(1),), 0, until))
    restarted = new_agent()
    assert beat(restarted, bus).asks
    accept(restarted, 1, 1, old_senders=True)
    work_all(restarted)
    restarted.handle(ReconcileGuests(HOST, (guest(2),), 1, until))
    assert driver.list_guests() == {instance(1): Power.RUNNING}


@pytest.mark.parametrize("at", ["9999-12-31T23:59:59+00:00", "0001-01-01T00:00:00+00:00", "2024-05-01T12:00:00", "x\n"])
def test_impossible_time_of_a_controller_is_not_taken(
    agent: Agent, driver: SimulatedDriver, bus: FakeBus, at: str
) -> None:
    """The agent could not reckon with it: no heartbeat was sent any more, no disk set aside."""
    sequence = beat(agent, bus).sequence
    accept(agent, 1, at=at, sequence=sequence)
    order(agent, 1, guest(1))
    order(agent, 1, guest(1, 2, Desired.ABSENT))
    message = beat(agent, bus)
    assert (message.asks, message.epoch) == (True, 1)
    assert not any("clock" in remark for remark in message.remarks)
    (kept,) = driver.kept()
    assert kept.removed_at == NOW.isoformat()


@pytest.mark.parametrize("epoch", [2**53, 2**63 - 1, 2**63, 2**70, -1])
def test_an_epoch_that_no_heartbeat_can_tell_is_not_taken(
    new_agent: Callable[[], Agent], driver: SimulatedDriver, bus: FakeBus, epoch: int
) -> None:
    """The journal kept it: all heartbeats of this host were poison from then on."""
    agent = new_agent()
    accept(agent, 4)
    accept(agent, epoch)
    assert beat(new_agent(), bus).epoch == 4
    order(agent, 4, guest(1))
    assert driver.list_guests() == {instance(1): Power.RUNNING}
