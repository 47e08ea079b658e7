"""What no agent says, were it well: refused or cut, and no other host's words suffer for it."""

import threading
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from controller.bus.batch_consumer import BatchConsumer
from controller.bus.bus import Bus
from controller.db.models import InstanceEvent, StrayGuest
from controller.domain import agent_messages
from controller.domain.errors import NewerMessage, PoisonMessage
from controller.domain.guests import Power
from controller.domain.messages import (
    HEARTBEATS,
    ConsoleRead,
    GuestReport,
    GuestsChanged,
    GuestState,
    HostObservation,
    HostReported,
    Message,
    OutdatedRequest,
    ScheduleReservation,
)
from controller.domain.states import Event, State
from controller.domain.wire import decode, encode
from controller.operations import dead_letters
from controller.operations.hosts import hosts, stray_guests
from controller.operations.instances import generations
from controller.operations.instances.reports import apply_reports
from controller.workers.service import ControllerService
from tests.labs.cloud import TestCloud, active, make_settings

ONE = "i-00000000000000001"
HEARTBEAT = HostReported("h1", "2026-01-01T00:00:00+00:00", "b1", "simulated", 8, 16384, 100)
HALF = "\ud800"  # of a surrogate pair: JSON can have it, no text can


@pytest.mark.parametrize(
    "wrong",
    [
        {"guests": (GuestState(ONE, 2**63, Power.RUNNING),)},
        {"guests": (GuestState(ONE, 2**63 - 1, Power.RUNNING),)},
        {"guests": (GuestState(ONE, -2, Power.RUNNING),)},
        {"guests": (GuestState("../../etc", 1, Power.RUNNING), GuestState(HALF, 1, Power.RUNNING))},
        {"guests": (GuestState("i-\n", 1, Power.RUNNING),)},
        {"guests": (GuestState("i" * 25, 1, Power.RUNNING),)},
        {"guests": (GuestState("", 1, Power.RUNNING),)},
        {"pending": ("\0",)},
        {"guests": tuple(GuestState(f"i-{n:017x}", 1, Power.RUNNING) for n in range(agent_messages.MAX_GUESTS + 1))},
        {"pending": tuple(f"i-{n:017x}" for n in range(agent_messages.MAX_GUESTS + 1))},
    ],
)
def test_a_heartbeat_that_no_agent_sends_is_poison(wrong: Any) -> None:
    with pytest.raises(PoisonMessage):
        agent_messages.check(replace(HEARTBEAT, **wrong))


@pytest.mark.parametrize(
    "wrong",
    [
        GuestsChanged("h1", (GuestReport(ONE, 2**70, Event.RUNNING),)),
        GuestsChanged("h1", (GuestReport(HALF, 1, Event.RUNNING),)),
        GuestsChanged("h1", (), (OutdatedRequest(ONE, 1, 2**64),)),
        GuestsChanged("h1", (), (OutdatedRequest("\0", 1, 1),)),
        GuestsChanged("h1", (GuestReport(ONE, 1, Event.RUNNING),) * (agent_messages.MAX_REPORTS + 1)),
        GuestsChanged("h1", (), (OutdatedRequest(ONE, 1, 1),) * (agent_messages.MAX_REPORTS + 1)),
    ],
)
def test_reports_that_no_agent_sends_are_poison(wrong: GuestsChanged) -> None:
    with pytest.raises(PoisonMessage):
        agent_messages.check(wrong)


def test_one_hosts_poison_is_in_no_batch(tmp_path: Path, site: TestCloud) -> None:
    """One poisoned heartbeat in each batch made all of them be handled one by one."""
    cloud_id = f"{zlib.crc32(b'poison in no batch'):08x}"
    settings = make_settings(tmp_path, bus__url="memory://", DEFAULT__cloud_id=cloud_id)
    batches: list[Sequence[Message]] = []
    both = threading.Event()

    def take(messages: Sequence[Message]) -> None:
        batches.append(messages)
        both.set()

    wrong = site.beat("h1", vcpus=-1), site.beat("h1", guests=(GuestState(HALF, 1, Power.RUNNING),))
    good = [site.beat("h2"), site.beat("h3")]
    consumer = BatchConsumer(settings, [HEARTBEATS], take, "test", check=agent_messages.check)
    consumer.declare()
    bus = Bus(settings)
    bus.send_all([wrong[0], good[0], wrong[1], good[1]])
    consumer.start()
    assert both.wait(10)
    consumer.stop()
    consumer.join(10)
    bus.close()
    assert batches == [good]


def test_what_an_agent_says_of_itself_is_one_line_that_can_be_kept(site: TestCloud) -> None:
    site.heartbeat(remarks=(f"a\nb\x1b[2J\0{HALF}; c",), probe_error=f"x\n\0{HALF}")
    host = site.cloud.read(lambda tx: hosts.get_host(tx, "h1"))
    assert host.remarks == "a b [2J  , c"
    assert "MAC probe: x   " in host.drift


def test_a_reason_too_long_is_cut(site: TestCloud) -> None:
    (one,) = active(site)
    report = GuestReport(one, 1, Event.SHUT_OFF, f"so\0 {HALF}" + "x" * 100_000)
    site.cloud.write(lambda tx: apply_reports(tx, [GuestsChanged("h1", (report,))]))
    instance = site.instance(one)
    assert (instance.state, instance.reason[:5], len(instance.reason)) == (State.STOPPED, "so\ufffd \ufffd", 4000)


def test_repeated_reports_cost_one_transition(site: TestCloud) -> None:
    """2,000 such reports took 1.8 s in one transaction, and a message may have 160,000."""
    (one,) = active(site)
    steps = select(func.count()).select_from(InstanceEvent).where(InstanceEvent.instance_id == one)
    before = site.cloud.read(lambda tx: tx.session.scalar(steps)) or 0
    events = (Event.SHUT_OFF, Event.RUNNING) * 50 + (Event.SHUT_OFF,)
    reports = tuple(GuestReport(one, 1, event, "so") for event in events)
    site.cloud.write(lambda tx: apply_reports(tx, [GuestsChanged("h1", reports)]))
    assert site.states([one]) == [State.STOPPED]
    assert site.cloud.read(lambda tx: tx.session.scalar(steps)) == before + 1


def test_of_hosts_that_never_joined_nothing_is_remembered(tmp_path: Path) -> None:
    site = TestCloud.create(tmp_path, controller__open_registration="false")
    controller = ControllerService(site.cloud)
    for n in range(200):
        controller.handle([site.beat(f"x{n}", sequence=1)])
    assert not any(controller._quiet.expects(site.beat(f"x{n}", sequence=2)) for n in range(200))
    site.close()


def test_a_host_that_shows_all_guests_of_the_site_has_a_few_looked_at(
    site: TestCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stray_guests, "_MOST_STRAYS", 2)
    ids = sorted(active(site, 5))
    shown = tuple(GuestState(i, 1, Power.RUNNING) for i in ids)
    rows = select(StrayGuest.instance_id).where(StrayGuest.host_id == "h2").order_by(StrayGuest.instance_id)
    for guests, found in ((shown, ids[:2]), ((*shown, *shown), ids[:2]), (shown[1:], ids[1:3]), ((), [])):
        site.heartbeat("h2", guests=guests)
        assert list(site.cloud.read(lambda tx: tx.session.scalars(rows).all())) == found
    assert site.states(ids) == [State.ACTIVE] * 5


def test_a_power_that_a_newer_release_knows_fits_its_column(site: TestCloud) -> None:
    (one,) = active(site)
    site.heartbeat("h2", guests=(GuestState(one, 1, Power("SUSPENDED_TO_THE_DISK_OF_ANOTHER_HOST")),))
    (stray,) = site.cloud.read(lambda tx: stray_guests.list_strays(tx, "h2"))
    assert stray.power == "SUSPENDED_TO_THE"


def test_a_host_cannot_exhaust_the_generations(site: TestCloud) -> None:
    """However often it says that it is ahead: wishes are still to be counted by a column of 32 bits."""
    (one,) = active(site)
    for newest in (100_001, 200_001, 2**31 - 1, 2**62, generations.MOST, generations.MOST + 1):
        answer = GuestsChanged("h1", (), (OutdatedRequest(one, 1, newest),))
        site.cloud.write(lambda tx, m=answer: apply_reports(tx, [m]))  # type: ignore[misc]
    assert site.instance(one).generation == 200_001


@pytest.mark.parametrize("kind", [f"Later{HALF}", "Later\nGuests", "Later" * 20, "", "\x1b[2J"])
def test_a_kind_that_is_no_word_is_of_no_newer_release(kind: str) -> None:
    """It was counted by its name, which then could not be written beside the service, or into a heartbeat."""
    with pytest.raises(PoisonMessage) as raised:
        decode('{"kind": ' + _json(kind) + ', "version": 99}')
    assert not isinstance(raised.value, NewerMessage)
    assert str(raised.value).isprintable()
    assert str(raised.value).isascii()


def _json(text: str) -> str:
    return '"' + "".join(f"\\u{ord(c):04x}" for c in text) + '"'


def test_a_dead_letter_that_no_table_keeps_is_kept(site: TestCloud) -> None:
    site.cloud.write(lambda tx: dead_letters.record_dead_letter(tx, b"\xff\0", f"q{HALF}", f"\0{HALF}"))
    (letter,) = site.cloud.read(dead_letters.list_dead_letters)
    assert (letter.queue, letter.reason, letter.body) == ("q\ufffd", "\ufffd\ufffd", "\ufffd\ufffd")


def test_other_messages_are_taken_as_they_are() -> None:
    agent_messages.check(ScheduleReservation("r-1"))
    agent_messages.check(HEARTBEAT)


def test_a_dead_letter_that_can_be_sent_nowhere_holds_up_no_other(site: TestCloud) -> None:
    """An answer in a queue of events: each round of the sweep ended with it, once it was to be replayed."""
    bus = Bus(site.cloud.settings)
    controller = ControllerService(replace(site.cloud, bus=bus))
    bell = ScheduleReservation("r-00000000000000001")
    for message in (HostObservation("h1"), ConsoleRead(ONE, ""), bell):
        body = encode(message).encode()
        site.cloud.write(lambda tx, b=body: dead_letters.record_dead_letter(tx, b, "events", "odd"))  # type: ignore[misc]
    ids = [letter.id for letter in site.cloud.read(dead_letters.list_dead_letters)]
    site.cloud.write(lambda tx: dead_letters.replay(tx, ids))
    try:
        controller.sweep()
    finally:
        bus.close()
    left = site.cloud.read(dead_letters.list_dead_letters)
    assert [(letter.replay_at, bell.KIND in letter.body) for letter in left] == [(None, False)] * 2
