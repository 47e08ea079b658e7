"""The auditor: a good cloud is clean, each promise that is broken by hand is told, and nothing else is."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import event

from controller.db.models import Network
from tests.labs.audit_rows import BREAKS, GoodCloud
from tests.labs.cloud import TestCloud, active


@pytest.fixture
def good(site: TestCloud) -> Iterator[GoodCloud]:
    made = GoodCloud.make(site)
    assert made.violations() == []
    yield made


def expect(good: GoodCloud, name: str) -> None:
    statements, promises, subject, words = BREAKS[name]
    good.run(*statements)
    found = good.violations()
    assert [b.promise for b in found] == list(promises), found
    assert any(words in b.what for b in found), found
    if subject:
        assert {b.subject for b in found} == {good.names[subject]}
    assert all(b.advice and str(b).startswith(f"promise {b.promise}: {b.subject}: ") for b in found)


@pytest.mark.parametrize("name", BREAKS)
def test_each_breach_is_told_and_nothing_else(good: GoodCloud, name: str) -> None:
    expect(good, name)


def test_spread(good: GoodCloud) -> None:
    same = next(
        v.id for v in good.site.views(good.active[2:]) if v.host_id in (good.names["host"], good.names["other"])
    )
    good.run(f"UPDATE instances SET group_id = 'pg-1' WHERE id = '{same}'")
    (violation,) = good.violations()
    assert (violation.promise, violation.subject) == (6, "pg-1")
    assert "2 of the spread group" in violation.what


def test_mac_addresses_that_a_host_may_not_carry(good: GoodCloud) -> None:
    good.run("UPDATE hosts SET allowed_macs = '02:aa:00:00:00:77' WHERE id = 'h1'")
    found = good.violations()
    assert {(b.promise, b.subject) for b in found} == {(6, "host h1")}
    assert any("02:00:00:00:00:01: lease 192.168.77.9 is pinned to h1" in b.what for b in found)
    assert any("02:aa:00:00:00:77: h1 may carry it" in b.what for b in found)


@pytest.mark.parametrize(
    ("table", "statement", "promise", "words"),
    [
        ("reservations", "UPDATE reservations SET client_token = 'x'", 2, "client token 'x' has"),
        ("leases", "UPDATE leases SET ip = (SELECT ip FROM leases WHERE instance_id = :active)"
         " WHERE instance_id = :second", 4, "2 leases of"),
        ("networks", "UPDATE networks SET vlan = 7", 4, "2 networks have VLAN 7"),
    ],
)  # fmt: skip
def test_what_only_a_constraint_holds(good: GoodCloud, table: str, statement: str, promise: int, words: str) -> None:
    good.without_constraints(table)
    missing = good.violations()
    assert missing
    assert {b.promise for b in missing} == {promise}
    assert all("UNIQUE" in b.what and b.subject == f"table {table}" for b in missing)
    good.run(statement)
    (violation,) = [b for b in good.violations() if b not in missing]
    assert violation.promise == promise
    assert words in violation.what


@pytest.mark.parametrize("minutes", [0, 1])
def test_what_is_overdue_for_a_moment_is_work_in_flight(good: GoodCloud, minutes: int) -> None:
    good.site.clock.advance(120 + 30 * minutes)  # REQUESTED has 120 s
    for host in ("h1", "h2"):
        good.site.heartbeat(host)
    assert good.violations() == []


def test_the_number_of_statements_does_not_grow(good: GoodCloud) -> None:
    def count() -> int:
        seen: list[str] = []
        note: Callable[..., None] = lambda _c, _k, statement, *_: seen.append(statement)  # noqa: E731
        engine = good.site.cloud.database.engine
        event.listen(engine, "before_cursor_execute", note)
        assert good.violations() == []
        event.remove(engine, "before_cursor_execute", note)
        return len([s for s in seen if "PRAGMA" not in s and "sqlite_master" not in s])

    before = count()
    active(good.site, 9)
    assert count() == before <= 30


def test_a_network_may_have_no_project(good: GoodCloud, tmp_path: Path) -> None:
    good.site.cloud.write(
        lambda tx: tx.session.query(Network).where(Network.name == "pinned").update({"project_id": None})
    )
    assert good.violations() == []
