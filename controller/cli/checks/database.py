"""The database: reachable, of a version that is known to work, with this release's tables, and room for all."""

import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from sqlalchemy import Connection, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from controller.cli.checks import durability, replication
from controller.cli.checks.item import Item, Subject, fail, ok, warn
from controller.cli.checks.variables import show, variable
from controller.conf.settings import Settings
from controller.db.database import make_engine, server_time, unavailable
from controller.db.models import AccessKey, Cloud
from controller.domain.clock import system_clock
from controller.domain.errors import CloudError
from controller.limits import connections, database_threads
from controller.operations import secrets
from controller.operations.database import schema

# SKIP LOCKED, which the sweeps use, came to MariaDB with 10.6.
_OLDEST = {"PostgreSQL": (13,), "MariaDB": (10, 6), "MySQL": (8, 0), "SQLite": (3, 35)}
_SKEW_WARN_S = 1.0
_PACKET_BYTES = 16 * 1024 * 1024


def probe(subject: Subject) -> Sequence[Item]:
    """Everything about the database; where it does not answer, that alone."""
    settings = subject.settings
    if (file := make_url(settings.database_url)).get_backend_name() == "sqlite" and not Path(
        file.database or ""
    ).exists():
        return [
            fail("database", f"there is no file {file.database}", "`pileus init`, or `pileus db upgrade`, makes it")
        ]
    engine = make_engine(settings)
    begin = time.monotonic()
    try:
        with engine.connect() as connection:
            took_ms = (time.monotonic() - begin) * 1000
            product = _product(connection)
            found = [_answers(connection, product, took_ms)]
            for look in (_schema, _isolation, _connections, _clock, *_OF_ENGINE.get(product, ())):
                found += look(connection, subject)
            return found
    except DBAPIError as error:
        advice = "is it running, and are host, user, password and name in [database] url right?"
        if "read-only" in str(error):
            advice = "the primary is away and no standby has been promoted"
        return [fail("database", str(unavailable(error)).rstrip("."), advice)]
    finally:
        engine.dispose()


def _product(connection: Connection) -> str:
    dialect = connection.dialect
    if dialect.name == "postgresql":
        return "PostgreSQL"
    if dialect.name == "sqlite":
        return "SQLite"
    return "MariaDB" if getattr(dialect, "is_mariadb", False) else "MySQL"


def _answers(connection: Connection, product: str, took_ms: float) -> Item:
    version = tuple(v for v in connection.dialect.server_version_info or () if isinstance(v, int))
    oldest = _OLDEST[product]
    url = connection.engine.url
    where = f" at {url.host}" + (f":{url.port}" if url.port else "") if url.host else f" in {url.database}"
    if product == "PostgreSQL":  # the URL may name several
        address, port = connection.execute(text("SELECT host(inet_server_addr()), inet_server_port()")).one()
        where = f" at {address}:{port}" if address else f" at {url.query.get('host', 'a local socket')}"
    seen = f"{product} {'.'.join(map(str, version[:3]))} answers after {took_ms:.0f} ms{where}"
    if version < oldest:
        return fail("database", seen, f"{product} {'.'.join(map(str, oldest))} is the oldest that works")
    return ok("database", seen)


def _schema(connection: Connection, subject: Subject) -> list[Item]:
    if reason := schema.problem_of(connection):
        return [fail("schema", reason, 'see "Upgrading a site" in docs/site.md')]
    current = schema.current(subject.settings)
    ours, theirs = subject.settings.general.cloud_id, connection.scalar(select(Cloud.cloud_id))
    if theirs != ours:
        advice = "every configuration file of a cloud has the same [DEFAULT] cloud_id"
        return [fail("schema", f"the database is cloud {theirs}'s, this configuration is {ours}'s", advice)]
    return [ok("schema", f"revision {current}, cloud {ours}"), _secret_key(connection, subject.settings)]


def _secret_key(connection: Connection, settings: Settings) -> Item:
    encrypted = connection.scalar(select(AccessKey.secret_encrypted).limit(1))
    if encrypted is None:
        return ok("secret key", "there is no access key yet that it must decrypt")
    try:
        secrets.decrypt(settings, encrypted)
    except CloudError as error:
        advice = "copy the key file of the machine where the cloud was set up; every API needs the same"
        return fail("secret key", str(error).rstrip("."), advice)
    return ok("secret key", "it decrypts the database's access keys")


def _isolation(connection: Connection, _subject: Subject) -> list[Item]:
    level = connection.get_isolation_level()
    if level not in ("READ COMMITTED", "SERIALIZABLE" if connection.dialect.name == "sqlite" else "READ COMMITTED"):
        return [fail("isolation", level.lower(), "something between resets READ COMMITTED: use no statement pooler")]
    return [ok("isolation", level.lower())]


def _connections(connection: Connection, subject: Subject) -> list[Item]:
    if connection.dialect.name == "sqlite":
        return []
    allowed = int(_value(connection, "max_connections", "max_connections"))
    kept = 1
    if connection.dialect.name == "postgresql":
        kept = int(show(connection, "superuser_reserved_connections"))
    needs = {
        name: count * connections([name], subject.settings)
        for name, count in subject.processes.items()
        if database_threads(name, subject.settings)
    }
    needed, free = sum(needs.values()), allowed - kept
    who = ", ".join(f"{subject.processes[n]} {n}: {c}" for n, c in needs.items()) or "no process"
    seen = f"{needed} needed ({who}), {free} allowed"
    if needed > free:
        return [fail("connections", seen, f"set max_connections to {needed + kept} at least, or run fewer processes")]
    return [ok("connections", seen)]


def _clock(connection: Connection, subject: Subject) -> list[Item]:
    theirs = server_time(connection)
    if theirs is None:
        return []
    skew_s = (theirs - system_clock()).total_seconds()
    seen = f"the database's differs from this machine's by {abs(skew_s):.1f} s"
    advice = "let chrony or systemd-timesyncd set both: deadlines and signatures live by the clock"
    if abs(skew_s) > subject.settings.controller.clock_skew_warn_s:
        if "controller" in subject.services:
            seen += ": until they agree, nothing expires here and no silent host is found"
        return [fail("clock", seen, advice)]
    return [warn("clock", seen, advice) if abs(skew_s) > _SKEW_WARN_S else ok("clock", seen)]


def _postgresql(connection: Connection, _subject: Subject) -> list[Item]:
    found = []
    if connection.scalar(text("SELECT pg_is_in_recovery()")):
        advice = "name all servers in [database] url, with target_session_attrs=read-write"
        found.append(fail("replica", "this server is a read-only standby", advice))
    return found


def _mariadb(connection: Connection, _subject: Subject) -> list[Item]:
    found = []
    if int(variable(connection, "read_only")):
        found.append(fail("replica", "this server is read-only", "let [database] url lead to the primary"))
    found += _tables(connection)
    packet = int(variable(connection, "max_allowed_packet"))
    if packet < _PACKET_BYTES:
        seen = f"max_allowed_packet is {packet} bytes"
        found.append(warn("packets", seen, f"set it to {_PACKET_BYTES}: thousands of instances are one statement"))
    with suppress(LookupError):
        galera = variable(connection, "wsrep_on") in ("ON", "1")
        if galera and not int(variable(connection, "wsrep_sync_wait")) & 1:
            advice = "set wsrep_sync_wait to 1, or let all connections lead to one node"
            found.append(warn("galera", "a node may answer with rows older than what was committed", advice))
    return found


def _tables(connection: Connection) -> list[Item]:
    rows = connection.execute(
        text(
            "SELECT table_name, engine, table_collation FROM information_schema.tables "
            "WHERE table_schema = DATABASE() AND table_type = 'BASE TABLE'"
        )
    ).all()
    # Alembic's own table is of the database's default.
    wrong = [t for t, engine, collation in rows if engine != "InnoDB" or _is_loose(t, collation)]
    if wrong:
        advice = "restore it as InnoDB with utf8mb4_bin: names that differ only in case would be one"
        return [fail("tables", f"{', '.join(sorted(wrong))} are not InnoDB with utf8mb4_bin", advice)]
    return [ok("tables", f"{len(rows)}, InnoDB with utf8mb4_bin")] if rows else []


def _is_loose(table: str, collation: str) -> bool:
    return table != "alembic_version" and re.fullmatch(r"utf8mb4_(.*_)?bin", collation) is None


def _value(connection: Connection, postgresql: str, mariadb: str) -> str:
    if connection.dialect.name == "postgresql":
        return show(connection, postgresql)
    return variable(connection, mariadb)


Look = Callable[[Connection, Subject], Sequence[Item]]
_OF_ENGINE: dict[str, Sequence[Look]] = {
    "SQLite": (durability.sqlite,),
    "PostgreSQL": (_postgresql, durability.postgresql, replication.postgresql),
    "MariaDB": (_mariadb, durability.mariadb),
    "MySQL": (_mariadb, durability.mariadb),
}
