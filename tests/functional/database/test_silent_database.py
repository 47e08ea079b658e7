"""A database that falls silent: every wait for it ends, and what it held is free again."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from controller.conf import Settings
from controller.db.database import Database
from controller.domain.errors import ConfigurationError, DatabaseUnavailable
from controller.operations.audit.audit import audit
from tests.faults import Row, each_row
from tests.labs.cloud import TestCloud, make_settings
from tests.labs.faults.black_hole import BlackHole
from tests.labs.servers.guarded import wait_until
from tests.labs.servers.mariadb import MariaDB
from tests.labs.servers.postgresql import PostgreSQL

pytestmark = pytest.mark.functional

ENGINES = ("postgresql", "mariadb")
ANSWERED = "DatabaseUnavailable: an answer is waited for for 2 s, a connection for 5 s"


@pytest.fixture
def server(request: pytest.FixtureRequest, engine: str) -> Iterator[PostgreSQL | MariaDB]:
    made: PostgreSQL | MariaDB = request.getfixturevalue(engine)
    yield made


def _settings(folder: Path, url: str, port: int, answer_s: int = 2) -> Settings:
    proxied = make_url(url).set(port=port).render_as_string(hide_password=False)
    return make_settings(
        folder,
        proxied,
        database__lock_timeout_s=1,
        database__answer_timeout_s=answer_s,
        database__idle_transaction_s=1,
        database__pool_timeout_s=2,
    )


@each_row(
    "engine",
    {e: Row(f"{e} falls silent", "a read and a write of one process", ANSWERED) for e in ENGINES},
)
def test_every_wait_ends(server: PostgreSQL | MariaDB, engine: str, tmp_path: Path) -> None:
    url = server.new_database()
    with BlackHole(server.port) as hole:
        database = Database(_settings(tmp_path, url, hole.port))
        assert database.read(lambda s: s.scalar(text("SELECT 1"))) == 1
        with hole.silent():
            for work in (database.read, database.write):
                with pytest.raises(DatabaseUnavailable):
                    work(lambda s: s.scalar(text("SELECT 1")))
        assert database.read(lambda s: s.scalar(text("SELECT 1"))) == 1
        database.close()
    server.drop_database(url)


@pytest.mark.timeout(60)
@each_row(
    "engine",
    {
        e: Row(f"{e} takes connections and says nothing", "the first connection of a process", "DatabaseUnavailable")
        for e in ENGINES
    },
)
def test_a_connection_is_not_waited_for_as_an_answer_is(
    server: PostgreSQL | MariaDB, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.db.database._CONNECT_S", 1)
    url = server.new_database()
    with BlackHole(server.port) as hole:
        database = Database(_settings(tmp_path, url, hole.port, answer_s=3600))
        with hole.silent(), pytest.raises(DatabaseUnavailable):
            database.read(lambda s: s.scalar(text("SELECT 1")))
        assert hole.taken == 1
        assert database.read(lambda s: s.scalar(text("SELECT 1"))) == 1
        database.close()
    server.drop_database(url)


@each_row(
    "engine",
    {
        e: Row(f"a process that {e} hears nothing of any more", "inside a transaction, with a lock", "the lock is free")
        for e in ENGINES
    },
)
def test_who_falls_silent_holds_no_lock_for_ever(server: PostgreSQL | MariaDB, engine: str, tmp_path: Path) -> None:
    url = server.new_database()
    database = Database(_settings(tmp_path, url, server.port))
    with database.engine.begin() as connection:
        connection.execute(text("CREATE TABLE things (id INTEGER PRIMARY KEY, n INTEGER)"))
        connection.execute(text("INSERT INTO things VALUES (1, 0)"))
    silent = database.engine.connect()
    silent.execute(text("UPDATE things SET n = 1"))

    def taken() -> bool:
        try:
            database.write(lambda s: s.execute(text("UPDATE things SET n = 2")))
        except DatabaseUnavailable:
            return False
        return True

    wait_until(taken, deadline_s=30, what=lambda: "the lock is held")
    silent.invalidate()
    database.close()
    server.drop_database(url)


def test_an_answer_may_take_longer_than_a_lock(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="answer_timeout_s must be greater"):
        make_settings(tmp_path, database__lock_timeout_s=5, database__answer_timeout_s=5)


@each_row(
    "engine",
    {
        e: Row(f"{e} is killed -9 and started again", "between two requests of one process", "nobody is told")
        for e in ENGINES
    },
)
def test_a_connection_that_died_unnoticed_is_replaced(
    server: PostgreSQL | MariaDB, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.db.database._TRUSTED_IDLE_S", 3600)
    database = Database(make_settings(tmp_path, server.new_database()))
    for work in (database.read, database.write):
        assert work(lambda s: s.scalar(text("SELECT 1"))) == 1
        server.kill()
        server.start()
        assert work(lambda s: s.scalar(text("SELECT 1"))) == 1
    database.close()


@each_row(
    "engine",
    {
        e: Row(f"{e} is killed -9 and started again", "between two audits of one process", "the audit is made anew")
        for e in ENGINES
    },
)
def test_an_audit_whose_connection_died_is_made_anew(
    server: PostgreSQL | MariaDB, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.db.database._TRUSTED_IDLE_S", 3600)
    site = TestCloud.create(tmp_path, server.new_database())
    assert site.cloud.read(audit) == []
    server.kill()
    server.start()
    assert site.cloud.read(audit) == []
    site.close()
