"""`pileus check` where one URL names several servers: whether they are one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from tests.labs.check_command import advice, check, set_up
from tests.labs.servers.guarded import wait_until
from tests.labs.servers.postgresql import PostgreSQL
from tests.labs.servers.rabbitmq import RabbitMQ

pytestmark = pytest.mark.functional


def test_brokers_that_are_not_one_cluster_and_then_are(tmp_path: Path, rabbitmq: RabbitMQ) -> None:
    conf = set_up(tmp_path, "", rabbitmq.url)
    with RabbitMQ(beside=rabbitmq) as other:
        url = f"{rabbitmq.url};{other.url}"
        status, seen = check(conf, bus__url=url)["cluster"]
        assert status == "fail"
        assert f"127.0.0.1:{other.port} is of cluster pileus-{other.port}@" in seen
        name = "one-name-for-both"
        for broker in (rabbitmq, other):
            broker.ctl("set_cluster_name", name)
        try:
            status, seen = check(conf, bus__url=url)["cluster"]
            assert (status, seen.endswith(f"call their cluster {name}, but are not one")) == ("fail", True)
            assert "join_cluster" in advice(conf.with_name("changed.conf"), "cluster")
            other.join(rabbitmq)
            assert check(conf, bus__url=url)["cluster"] == ("ok", f"2 brokers of {name}")
        finally:
            rabbitmq.ctl("set_cluster_name", rabbitmq.node)
            other.stop()
            rabbitmq.ctl("forget_cluster_node", other.node)
    assert "cluster" not in check(conf)
    assert ".check." not in rabbitmq.ctl("list_queues", "name")


@pytest.fixture
def primary() -> Iterator[PostgreSQL]:
    with PostgreSQL() as server:
        yield server


def both(url: str, one: PostgreSQL, other: PostgreSQL) -> str:
    """The URL of a database that names two servers."""
    database = make_url(url).database
    hosts = f"host=127.0.0.1:{one.port}&host=127.0.0.1:{other.port}"
    return f"postgresql+psycopg://pileus:{one.password}@/{database}?{hosts}&target_session_attrs=read-write"


def test_databases_that_have_nothing_to_do_with_each_other(tmp_path: Path, primary: PostgreSQL) -> None:
    url = primary.new_database()
    conf = set_up(tmp_path, url, "memory://")
    with PostgreSQL(password=primary.password) as other:
        execute(other, f"CREATE DATABASE {make_url(url).database}")
        status, seen = check(conf, database__url=both(url, primary, other))["one database"]
    assert status == "fail"
    assert f"127.0.0.1:{other.port} is system " in seen


def test_each_state_of_a_standby(tmp_path: Path, primary: PostgreSQL) -> None:
    url = primary.new_database()
    conf = set_up(tmp_path, url, "memory://")
    with PostgreSQL(follows=primary) as standby:
        named = both(url, primary, standby)
        following(primary, "async")
        items = check(conf, database__url=named)
        assert items["one database"] == ("ok", "2 servers, time line 1")
        assert items["standby"] == ("warn", "walreceiver follows (async): no commit waits for it")
        execute(primary, "ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
        following(primary, "sync")
        items = check(conf, database__url=named)
        assert items["standby"] == ("ok", "walreceiver follows (sync): every commit waits for it")
        assert items["database"][0] == "ok"
        execute(primary, "ALTER ROLE pileus SET synchronous_commit = local")
        status, seen = check(conf, database__url=named)["standby"]
        assert (status, "synchronous_commit = local" in seen) == ("warn", True)
        execute(primary, "ALTER ROLE pileus RESET synchronous_commit")
        execute(primary, "ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()")
        standby.stop()
        items = check(conf, database__url=named)
        assert items["standby"] == ("warn", "none follows: a failover loses what was answered")
        assert items[f"database 127.0.0.1:{standby.port}"][0] == "warn"
        standby.start()
        following(primary, "async")
        execute(standby, "SELECT pg_promote()")
        status, seen = check(conf, database__url=named)["one database"]
        assert (status, seen.endswith("both take writes")) == ("fail", True)


def following(server: PostgreSQL, how: str) -> None:
    """Wait until a standby follows in this way."""
    query = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming' AND sync_state = :how"
    engine = create_engine(server.url)

    def follows() -> bool:
        with engine.connect() as connection:
            return bool(connection.scalar(text(query), {"how": how}) == 1)

    try:
        wait_until(follows, deadline_s=60, what=server.log.read_text)
    finally:
        engine.dispose()


def execute(server: PostgreSQL, *statements: str) -> None:
    engine = create_engine(server.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()
