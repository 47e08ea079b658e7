"""What agents and strangers say is kept by each of the real engines, or refused before one is asked."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.domain import agent_messages
from controller.domain.errors import PoisonMessage
from controller.domain.guests import Desired, Power
from controller.domain.messages import GuestReport, GuestsChanged, GuestState, Message, OutdatedRequest
from controller.domain.states import Event, State
from controller.operations import dead_letters
from controller.operations.hosts import hosts, stray_guests
from controller.operations.instances import actions
from controller.operations.instances.reports import apply_reports
from tests.labs.cloud import TestCloud, active

pytestmark = pytest.mark.functional

ODD = "a\0\ud800\n" + "x" * 100_000


@pytest.fixture
def site(tmp_path: Path, database_url: str) -> Iterator[TestCloud]:
    made = TestCloud.create(tmp_path, database_url, controller__open_registration="true")
    made.heartbeat()
    yield made
    made.close()


def test_odd_words_are_kept(site: TestCloud) -> None:
    one, other = active(site, 2)
    site.heartbeat(remarks=(ODD,) * 32, probe_error=ODD[:500], guests=(GuestState(one, 1, Power.RUNNING),))
    assert site.cloud.read(lambda tx: hosts.get_host(tx, "h1").remarks).startswith("a   xxx")
    site.heartbeat("h2", guests=(GuestState(other, 2**63 - 2, Power("\0\ud800" + "X" * 60)),))
    (stray,) = site.cloud.read(lambda tx: stray_guests.list_strays(tx, "h2"))
    assert (stray.power, stray.generation) == ("\ufffd\ufffd" + "X" * 14, 2**63 - 2)
    report = GuestReport(one, 1, Event.SHUT_OFF, ODD, ODD)
    site.cloud.write(lambda tx: apply_reports(tx, [GuestsChanged("h1", (report,))]))
    assert site.states([one]) == [State.STOPPED]
    site.cloud.write(lambda tx: dead_letters.record_dead_letter(tx, ODD.encode("utf-8", "surrogatepass"), ODD, ODD))
    assert len(site.cloud.read(dead_letters.list_dead_letters)) == 1


def test_odd_numbers_are_refused_or_change_nothing(site: TestCloud) -> None:
    (one,) = active(site)
    for number in (-(2**63), -1, 0, 2**31 - 1, 2**31, 2**63 - 2, 2**63 - 1, 2**70):
        for message in (
            GuestsChanged("h1", (GuestReport(one, number, Event.RUNNING),)),
            GuestsChanged("h1", (), (OutdatedRequest(one, number, number),)),
            GuestsChanged("h1", (), (OutdatedRequest(one, 1, number),)),
        ):
            if is_taken(message):
                site.cloud.write(lambda tx, m=message: apply_reports(tx, [m]))  # type: ignore[misc]
        for changes in (
            {"guests": (GuestState(one, number, Power.RUNNING),)},
            {"epoch": number},
            {"sequence": number},
        ):
            if is_taken(site.beat(**changes)):
                site.heartbeat(**changes)
    assert (site.instance(one).generation, site.states([one])) == (1, [State.ACTIVE])
    site.cloud.write(lambda tx: actions.terminate(tx, site.project_id, [one]))
    assert [c.guests[0].generation for c in site.commands() if c.guests[0].desired is Desired.ABSENT] == [2]


def is_taken(message: Message) -> bool:
    try:
        agent_messages.check(message)
    except PoisonMessage:
        return False
    return True
