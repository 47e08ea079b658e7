"""The journal: the newest generation wins, whatever the order of the commands; nothing is lost."""

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute_agent.journal.journal import Journal
from controller.domain.errors import Unavailable
from controller.domain.guests import Desired, Power
from controller.domain.messages import GuestReport, OutdatedRequest
from controller.domain.states import Event
from tests.labs.agent import HOST, guest, instance

_SCHEMA_01 = """
CREATE TABLE guests (
    host TEXT NOT NULL,
    instance TEXT NOT NULL,
    generation INTEGER NOT NULL,
    spec TEXT,
    position INTEGER NOT NULL,
    pending INTEGER NOT NULL,
    done_generation INTEGER NOT NULL DEFAULT -1,
    built INTEGER NOT NULL DEFAULT 0,
    event TEXT,
    reason TEXT NOT NULL DEFAULT '',
    reported INTEGER NOT NULL DEFAULT 1,
    gone_at REAL,
    PRIMARY KEY (host, instance)
) WITHOUT ROWID;
CREATE TABLE boots (host TEXT PRIMARY KEY, boot_id TEXT NOT NULL) WITHOUT ROWID;
"""
commands = st.lists(
    st.tuples(st.integers(1, 3), st.integers(1, 5), st.booleans()),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(commands)
def test_any_order_and_repetition_ends_in_the_newest_generation(steps: list[tuple[int, int, bool]]) -> None:
    newest: dict[int, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder) / "journal.db")
        for number, generation, work_now in steps:
            journal.record(HOST, [guest(number, generation)])
            newest[number] = max(newest.get(number, 0), generation)
            pending_request = journal.pending_request(HOST, instance(number))
            if work_now and pending_request is not None:
                assert journal.finish(HOST, instance(number), pending_request.spec.generation, Event.RUNNING)
        pending = {s.instance_id: s.generation for s in journal.pending(HOST)}
        done = journal.generations(HOST)
        for number, generation in newest.items():
            if instance(number) in pending:
                assert pending[instance(number)] == generation
                assert done[instance(number)] < generation
            else:
                assert done[instance(number)] == generation
        journal.close()


def test_a_batch_is_taken_in_its_order(journal: Journal) -> None:
    assert journal.record(HOST, [guest(n) for n in (3, 1, 2)]) == []
    assert journal.record(HOST, [guest(1), guest(4)]) == []
    assert [s.instance_id for s in journal.pending(HOST)] == [instance(n) for n in (3, 1, 2, 4)]
    assert journal.pending("another") == []


def test_what_was_recorded_is_there_after_a_restart(tmp_path: Path) -> None:
    first = Journal(tmp_path / "j.db")
    first.record(HOST, [guest(1, 5, reboot=True)])
    first.close()
    second = Journal(tmp_path / "j.db")
    pending_request = second.pending_request(HOST, instance(1))
    assert pending_request is not None
    assert pending_request.spec == guest(1, 5, reboot=True)
    assert not pending_request.built
    second.close()


def test_result_of_an_older_request_is_not_reported(journal: Journal) -> None:
    journal.record(HOST, [guest(1, 1)])
    journal.record(HOST, [guest(1, 2, Desired.ABSENT)])
    assert not journal.finish(HOST, instance(1), 1, Event.RUNNING)
    assert journal.unreported(HOST) == []
    pending_request = journal.pending_request(HOST, instance(1))
    assert pending_request is not None
    assert pending_request.built


def test_a_result_that_changed_while_it_was_sent_is_sent_again(journal: Journal) -> None:
    journal.record(HOST, [guest(1)])
    journal.finish(HOST, instance(1), 1, Event.RUNNING)
    sent = journal.unreported(HOST)
    assert journal.observe(HOST, instance(1), (1, Event.RUNNING), Event.SHUT_OFF, "gone")
    journal.mark_reported(HOST, sent, 0)
    assert journal.unreported(HOST) == [GuestReport(instance(1), 1, Event.SHUT_OFF, "gone")]


def test_what_was_seen_does_not_replace_what_happened_since(journal: Journal) -> None:
    journal.record(HOST, [guest(1)])
    journal.finish(HOST, instance(1), 1, Event.RUNNING)
    was = journal.settled(HOST)[instance(1)]
    journal.record(HOST, [guest(1, 2, Desired.SHUT_OFF)])
    assert not journal.observe(HOST, instance(1), was, Event.SHUT_OFF, "gone")


def test_a_tombstone_lasts_until_it_is_forgotten(journal: Journal) -> None:
    journal.record(HOST, [guest(1, 2, Desired.ABSENT)])
    journal.finish(HOST, instance(1), 2, Event.GONE)
    journal.forget(1e12)
    assert journal.record(HOST, [guest(1, 1)]) == [OutdatedRequest(instance(1), 1, 2)]
    journal.mark_reported(HOST, journal.unreported(HOST), 100.0)
    journal.forget(99.0)
    assert journal.record(HOST, [guest(1, 1)]) == [OutdatedRequest(instance(1), 1, 2)]
    # A repeated order to remove it is answered as before.
    journal.record(HOST, [guest(1, 2, Desired.ABSENT)])
    assert [r.event for r in journal.unreported(HOST)] == [Event.GONE]
    journal.mark_reported(HOST, journal.unreported(HOST), 100.0)
    journal.forget(101.0)
    assert journal.record(HOST, [guest(1, 1)]) == []
    assert [s.generation for s in journal.pending(HOST)] == [1]


@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize(
    ("desired", "reboot"), [(Desired.SHUT_OFF, False), (Desired.ABSENT, False), (Desired.RUNNING, True)]
)
def test_equal_generation_with_another_request_is_outdated(
    journal: Journal, done: bool, desired: Desired, reboot: bool
) -> None:
    """The sender's database was restored: an old result is no answer to what it wishes now."""
    journal.record(HOST, [guest(1, 5)])
    if done:
        journal.finish(HOST, instance(1), 5, Event.RUNNING)
        journal.mark_reported(HOST, journal.unreported(HOST), 0)
    other = guest(1, 5, desired, reboot=reboot)
    assert journal.record(HOST, [other, guest(2, 1)]) == [OutdatedRequest(instance(1), 5, 5)]
    assert journal.unreported(HOST) == []
    assert [s.instance_id for s in journal.pending(HOST)] == [instance(n) for n in ((2,) if done else (1, 2))]
    assert journal.record(HOST, [guest(1, 5)]) == []
    assert [r.event for r in journal.unreported(HOST)] == ([Event.RUNNING] if done else [])


def test_thousands_of_outdated_requests_are_found_together(journal: Journal) -> None:
    journal.record(HOST, [guest(n, 3) for n in range(2000)])
    assert len(journal.record(HOST, [guest(n, 2) for n in range(2000)])) == 2000


def test_a_journal_of_release_01_is_opened_and_keeps_what_it_knows(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    with closing(sqlite3.connect(path)) as old:
        old.executescript(_SCHEMA_01)
        old.execute(
            "INSERT INTO guests (host, instance, generation, position, pending, built, event, done_generation)"
            " VALUES (?, ?, 4, 1, 0, 1, 'RUNNING', 4)",
            (HOST, instance(1)),
        )
        old.commit()
    for _ in range(2):
        journal = Journal(path)
        assert journal.settled(HOST) == {instance(1): (4, Event.RUNNING)}
        journal.close()
    journal = Journal(path)
    assert journal.observe(HOST, instance(1), (4, Event.RUNNING), Event.SHUT_OFF, "off", "shutdown")
    assert journal.unreported(HOST) == [GuestReport(instance(1), 4, Event.SHUT_OFF, "off", "shutdown")]
    journal.close()


def test_a_corrupt_file_is_moved_aside_and_filled_again(tmp_path: Path) -> None:
    path = tmp_path / "agent" / "journal.db"
    Journal(path).close()
    path.write_bytes(b"no database at all" * 100)
    journal = Journal(path)
    assert journal.adopt(HOST, {instance(1): Power.RUNNING}) == 1
    assert journal.settled(HOST) == {instance(1): (-1, Event.RUNNING)}
    assert journal.unreported(HOST) == []
    assert len(list(path.parent.glob("journal.db.corrupt-*"))) == 1
    journal.close()


def test_a_closed_journal_is_unavailable(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.db")
    journal.close()
    with pytest.raises(Unavailable):
        journal.record(HOST, [guest(1)])
    with pytest.raises(Unavailable):
        journal.pending(HOST)
