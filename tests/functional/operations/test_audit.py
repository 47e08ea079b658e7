"""The auditor on the three engines: every breach is told, and a cloud at work raises no false alarm."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from controller.db.models import Host
from controller.domain.states import Event
from controller.operations.audit import repair
from controller.operations.audit.audit import CHECKS, audit
from controller.operations.audit.violation import Violation
from controller.operations.cloud import Transaction
from controller.operations.hosts import hosts
from controller.operations.instances import actions
from tests.labs.audit_rows import BREAKS, LONG_AGO, GoodCloud
from tests.labs.cloud import TestCloud, place

pytestmark = pytest.mark.functional


@pytest.fixture
def site(tmp_path: Path, database_url: str) -> Iterator[TestCloud]:
    made = TestCloud.create(tmp_path, database_url, database__retries=30)
    made.heartbeat()
    yield made
    made.close()


def test_each_breach_is_told(site: TestCloud) -> None:
    good = GoodCloud.make(site)
    assert good.violations() == []
    for name, (statements, promises, _, words) in BREAKS.items():
        with Session(site.cloud.database.engine) as session:
            for statement in statements:
                session.execute(text(statement), {"long_ago": LONG_AGO} | good.names)
            tx = Transaction(session, site.clock(), site.cloud.ids, site.cloud.settings)
            found = [b for check in CHECKS for b in check(tx)]
            session.rollback()
        assert [b.promise for b in found] == list(promises), (name, found)
        assert any(words in b.what for b in found), (name, found)
    assert good.violations() == []


def test_a_cloud_at_work_is_clean(site: TestCloud) -> None:
    GoodCloud.make(site)
    begun, done = threading.Event(), threading.Event()

    def work(_: int) -> None:
        for _ in range(5):
            ids = site.launch(3)
            place(site)
            begun.set()
            site.report(ids, Event.RUNNING)
            site.cloud.write(lambda tx, i=ids: actions.terminate(tx, site.project_id, i))  # type: ignore[misc]
            site.report(ids, Event.GONE)

    def look() -> list[list[Violation]]:
        seen = []
        begun.wait(30)
        while not done.is_set():
            seen.append(site.cloud.read(audit))
        return seen

    with ThreadPoolExecutor(4) as pool:
        looking = pool.submit(look)
        try:
            list(pool.map(work, range(3)))
        finally:
            begun.set()
            done.set()
        seen = looking.result()
    assert len(seen) >= 3
    assert [s for s in seen if s] == []
    assert site.cloud.read(audit) == []


def test_counters_are_set_right_while_others_change_them(site: TestCloud) -> None:
    GoodCloud.make(site)
    done = threading.Event()

    def work(_: int) -> None:
        for _ in range(5):
            ids = site.launch(3)
            place(site)
            site.report(ids, Event.RUNNING)
            site.cloud.write(lambda tx, i=ids: actions.terminate(tx, site.project_id, i))  # type: ignore[misc]
            site.report(ids, Event.GONE)

    def recount() -> int:
        rounds = 0
        while not done.is_set():
            site.cloud.write(lambda tx: repair.recount_hosts(tx, ["h1", "h2"]))
            site.cloud.write(lambda tx: repair.recount_projects(tx, [site.project_id]))
            rounds += 1
        return rounds

    with ThreadPoolExecutor(3) as pool:
        recounting = pool.submit(recount)
        try:
            list(pool.map(work, range(2)))
        finally:
            done.set()
        assert recounting.result() >= 1
    assert site.cloud.read(audit) == []


def test_the_audit_sees_one_moment(site: TestCloud) -> None:
    def count_hosts_twice(tx: Transaction) -> tuple[int, int]:
        audit(tx)
        query = select(func.count()).select_from(Host)
        before = tx.session.scalars(query).one()
        site.heartbeat("new")
        return before, tx.session.scalars(query).one()

    before, after = site.cloud.read(count_hosts_twice)
    assert before == after == len(site.cloud.read(hosts.list_hosts)) - 1


def test_the_snapshot_is_the_audits_alone(tmp_path: Path, database_url: str) -> None:
    """The connection goes back to the pool as it was."""
    site = TestCloud.create(tmp_path, database_url, database__pool_size=1, database__max_overflow=0)
    level = site.cloud.read(lambda tx: tx.session.connection().get_isolation_level())
    assert site.cloud.read(audit) == []
    assert site.cloud.read(lambda tx: tx.session.connection().get_isolation_level()) == level
    site.heartbeat()  # it can be written to
    site.close()
