"""`pileus check` against the real engines, well and broken."""

import json
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from controller.cli.checks import database as database_checks
from controller.conf import load_settings
from controller.domain.clock import system_clock
from tests.labs.check_command import advice, check, set_up
from tests.labs.cloud import make_settings
from tests.labs.servers.mariadb import MariaDB
from tests.labs.servers.postgresql import PostgreSQL
from tests.labs.servers.rabbitmq import RabbitMQ

pytestmark = pytest.mark.functional

Check = Callable[..., dict[str, tuple[str, str]]]


@pytest.fixture
def conf(tmp_path: Path, database_url: str, rabbitmq: RabbitMQ) -> Path:
    """The configuration of a site of simulated hosts on real engines, set up."""
    return set_up(tmp_path, database_url, rabbitmq.url)


def test_a_site_is_well(conf: Path) -> None:
    items = check(conf, "--processes", "api=2,scheduler=2")
    bad = {n: i for n, i in items.items() if i[0] != "ok" and n != "durability"}  # the tests' servers have none
    assert bad == {}
    assert items["isolation"][1] in ("read committed", "serializable")
    assert items["bus"][1].startswith("RabbitMQ 3.")
    assert items["quorum queue"][1].startswith("declared, a message confirmed and received, deleted")


def test_the_temporary_queue_is_gone(conf: Path, rabbitmq: RabbitMQ) -> None:
    check(conf)
    assert ".check." not in rabbitmq.ctl("list_queues", "name")


@pytest.mark.parametrize("database_url", ["postgresql", "mariadb"], indirect=True)
def test_more_processes_than_the_database_has_connections(conf: Path) -> None:
    status, seen = check(conf, "--processes", "api=40")["connections"]
    assert status == "fail"
    assert "40 api: 360" in seen


@pytest.mark.parametrize("database_url", ["postgresql", "mariadb"], indirect=True)
def test_a_wrong_password_is_told_and_not_shown(conf: Path) -> None:
    url = make_url(load_settings(conf).database_url)
    wrong = url.set(password="not-this-one").render_as_string(hide_password=False)
    items = check(conf, database__url=wrong)
    status, seen = items["database"]
    assert status == "fail"
    assert "not-this-one" not in json.dumps(items)
    assert items["quorum queue"][0] == "ok"
    assert seen


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_database_that_is_down(conf: Path, postgresql: PostgreSQL) -> None:
    postgresql.stop()
    try:
        items = check(conf)
    finally:
        postgresql.start()
    assert items["database"][0] == "fail"
    assert "schema" not in items
    assert items["bus"][0] == "ok"


@pytest.mark.parametrize("database_url", ["postgresql", "mariadb"], indirect=True)
@pytest.mark.parametrize("ahead_s", [3600, -3600])
def test_a_clock_that_is_wrong(conf: Path, monkeypatch: pytest.MonkeyPatch, ahead_s: int) -> None:
    monkeypatch.setattr(database_checks, "system_clock", lambda: system_clock() + timedelta(seconds=ahead_s))
    status, seen = check(conf)["clock"]
    assert status == "fail"
    assert "nothing expires here and no silent host is found" in seen
    assert "expires" not in check(conf, "api")["clock"][1]


@pytest.mark.parametrize("database_url", ["mariadb"], indirect=True)
def test_tables_that_tell_no_case_apart(conf: Path, mariadb: MariaDB) -> None:
    engine = create_engine(load_settings(conf).database_url)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE cloud CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci"))
    engine.dispose()
    status, seen = check(conf)["tables"]
    assert (status, seen.split()[0]) == ("fail", "cloud")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_an_embedded_database_is_durable(conf: Path) -> None:
    assert check(conf)["durability"] == ("ok", "a commit is on the disk when it is answered (synchronous = FULL)")


class TestDurability:
    """Servers that wait for the disk, and those that do not, as most of the tests' own."""

    def test_postgresql(self, tmp_path: Path) -> None:
        with PostgreSQL(durable=True) as server:
            conf = set_up(tmp_path, server.new_database(), "memory://")
            assert check(conf)["durability"] == (
                "ok",
                "a commit is on the disk when it is answered "
                "(fsync = on, synchronous_commit = on, full_page_writes = on)",
            )
            engine = create_engine(load_settings(conf).database_url, isolation_level="AUTOCOMMIT")
            with engine.connect() as connection:
                connection.execute(text("ALTER ROLE pileus SET synchronous_commit = off"))
            engine.dispose()
            status, seen = check(conf)["durability"]
            assert (status, seen.partition(":")[0]) == ("warn", "synchronous_commit = off")

    @pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
    def test_postgresql_that_does_not_sync(self, conf: Path) -> None:
        status, seen = check(conf)["durability"]
        assert (status, seen.partition(":")[0]) == ("warn", "fsync = off, full_page_writes = off")
        assert "set fsync, synchronous_commit and full_page_writes to on" in advice(conf, "durability")

    def test_mariadb(self, tmp_path: Path) -> None:
        with MariaDB(durable=True, options={"log-bin": "binlog", "sync-binlog": "1"}) as server:
            conf = set_up(tmp_path, server.new_database(), "memory://")
            status, seen = check(conf)["durability"]
            assert (status, seen) == (
                "ok",
                "a commit is on the disk when it is answered "
                "(innodb_flush_log_at_trx_commit = 1, innodb_doublewrite = 1, sync_binlog = 1)",
            )
            engine = create_engine(server.url, isolation_level="AUTOCOMMIT")
            with engine.connect() as connection:
                connection.execute(text("SET GLOBAL innodb_flush_log_at_trx_commit = 0"))
                connection.execute(text("SET GLOBAL sync_binlog = 0"))
            engine.dispose()
            status, seen = check(conf)["durability"]
            lossy = "innodb_flush_log_at_trx_commit = 0, sync_binlog = 0"
            assert (status, seen.partition(":")[0]) == ("warn", lossy)
            assert "to 1" in advice(conf, "durability")

    @pytest.mark.parametrize("database_url", ["mariadb"], indirect=True)
    def test_mariadb_that_does_not_sync(self, conf: Path) -> None:
        status, seen = check(conf)["durability"]
        assert status == "warn"
        assert seen.startswith("innodb_flush_log_at_trx_commit = 2, innodb_flush_method = nosync:")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
class TestBroker:
    def test_wrong_password(self, conf: Path, rabbitmq: RabbitMQ) -> None:
        items = check(conf, bus__url=rabbitmq.url.replace("guest:guest", "guest:wrong"))
        assert items["bus"] == ("fail", f"127.0.0.1:{rabbitmq.port} refuses user or password")
        assert "quorum queue" not in items

    def test_no_such_virtual_host(self, conf: Path, rabbitmq: RabbitMQ) -> None:
        status, seen = check(conf, bus__url=f"{rabbitmq.url.removesuffix('/')}nothing")["bus"]
        assert status == "fail"
        assert "no such virtual host" in seen

    def test_a_user_without_rights(self, conf: Path, rabbitmq: RabbitMQ) -> None:
        rabbitmq.ctl("add_user", "poor", "secret")
        try:
            rabbitmq.ctl("set_permissions", "poor", "^$", ".*", ".*")
            items = check(conf, bus__url=rabbitmq.url.replace("guest:guest", "poor:secret"))
            assert items["bus"][0] == "ok"
            assert items["quorum queue"] == ("fail", "the user may not declare, write or read")
            rabbitmq.ctl("set_permissions", "poor", r"^pileus\.", r"^pileus\.", r"^pileus\.")
            items = check(conf, bus__url=rabbitmq.url.replace("guest:guest", "poor:secret"))
            assert items["quorum queue"][0] == "ok"  # as docs/site.md has it
        finally:
            rabbitmq.ctl("delete_user", "poor")

    def test_one_of_two_is_away(self, conf: Path, rabbitmq: RabbitMQ) -> None:
        items = check(conf, bus__url=f"amqp://guest:guest@127.0.0.1:1//;{rabbitmq.url}")
        assert items["bus 127.0.0.1:1"][0] == "warn"
        assert items[f"bus 127.0.0.1:{rabbitmq.port}"][0] == "ok"
        assert items["quorum queue"][0] == "ok"

    def test_away_is_told_soon(self, conf: Path) -> None:
        begin = time.monotonic()
        assert check(conf, bus__url="amqp://guest:guest@127.0.0.1:1//")["bus"][0] == "fail"
        assert time.monotonic() - begin < 15


def test_a_database_of_another_cloud(conf: Path) -> None:
    assert check(conf, DEFAULT__cloud_id="0badc10d")["schema"][0] == "fail"
    assert make_settings(conf.parent).general.cloud_id != "0badc10d"
