"""Several PostgreSQL servers in one URL: whether they are one database, and whether a failover loses a commit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url

from controller.cli.checks.item import Item, Subject, fail, ok, warn
from controller.cli.checks.variables import show

_CONNECT_S = 3
_ABOUT = """
SELECT pg_is_in_recovery(),
    (SELECT system_identifier FROM pg_control_system()),
    greatest((SELECT timeline_id FROM pg_control_checkpoint()),
             (SELECT min_recovery_end_timeline FROM pg_control_recovery()))
"""
_STANDBYS = (
    "SELECT coalesce(nullif(application_name, ''), client_addr::text), state, sync_state FROM pg_stat_replication"
)


@dataclass(frozen=True)
class _Server:
    where: str
    standby: bool
    system: str
    timeline: int


def postgresql(connection: Connection, subject: Subject) -> Sequence[Item]:
    """What the servers of the URL say of each other, ``connection`` being to the one that takes writes."""
    hosts = _hosts(subject)
    if len(hosts) < 2:
        return []
    asked = [_ask(host) for host in hosts]
    servers = [a for a in asked if isinstance(a, _Server)]
    away = [a for a in asked if isinstance(a, Item)]
    return [*away, *_compared(servers), _standbys(connection)]


def _hosts(subject: Subject) -> list[Mapping[str, Any]]:
    """The arguments of a connection to each server of the URL."""
    url = make_url(subject.settings.database_url)
    _, options = url.get_dialect()().create_connect_args(url)
    names = str(options.pop("host", "")).split(",")
    ports = str(options.pop("port", "")).split(",")
    options.pop("target_session_attrs", None)
    if len(ports) != len(names):
        ports = ports[:1] * len(names)
    return [
        {**options, "host": n, "connect_timeout": _CONNECT_S, **({"port": p} if p else {})}
        for n, p in zip(names, ports, strict=True)
    ]


def _ask(host: Mapping[str, Any]) -> _Server | Item:
    # Only where it is used: a cloud on SQLite has no psycopg.
    import psycopg

    where = f"{host['host']}:{host.get('port', 5432)}"
    try:
        with psycopg.connect(**host, autocommit=True) as connection:
            row = connection.execute(_ABOUT).fetchone()
    except psycopg.Error as error:
        reason = str(error).strip().splitlines()[0]
        return warn(f"database {where}", f"it cannot be asked: {reason}", "the others carry the cloud until it is back")
    assert row is not None
    return _Server(where, bool(row[0]), str(row[1]), int(row[2]))


def _compared(servers: Sequence[_Server]) -> list[Item]:
    if len({s.system for s in servers}) > 1:
        seen = ", ".join(f"{s.where} is system {s.system}" for s in servers)
        advice = "make all but one anew as its standby: `pg_basebackup --write-recovery-conf`"
        return [fail("one database", f"these are different databases: {seen}", advice)]
    primaries = [s.where for s in servers if not s.standby]
    if len(primaries) > 1:
        advice = "stop all but the one that has the newest rows, and make the others anew as its standbys"
        return [fail("one database", f"{' and '.join(primaries)} both take writes", advice)]
    if len({s.timeline for s in servers}) > 1:
        seen = ", ".join(f"{s.where} is on time line {s.timeline}" for s in servers)
        advice = "a standby that does not follow within minutes: `pg_rewind`, or make it anew"
        return [warn("one database", seen, advice)]
    return [ok("one database", f"{len(servers)} servers, time line {servers[0].timeline}")] if len(servers) > 1 else []


def _standbys(connection: Connection) -> Item:
    rows = connection.execute(text(_STANDBYS)).all()
    if any(state is None for _, state, _ in rows):
        return warn("standby", "this account may not see how standbys follow", "`GRANT pg_monitor TO pileus`")
    following = {name: sync for name, state, sync in rows if state == "streaming"}
    if not following:
        return warn("standby", "none follows: a failover loses what was answered", "see to the standby's log")
    seen = ", ".join(f"{name} follows ({sync})" for name, sync in sorted(following.items()))
    if not {"sync", "quorum"} & set(following.values()):
        advice = "set synchronous_standby_names = '*' on the primary: a failover loses requests that were answered"
        return warn("standby", f"{seen}: no commit waits for it", advice)
    level = show(connection, "synchronous_commit")
    if level in ("off", "local"):
        advice = "set synchronous_commit to on: a failover loses requests that were answered"
        return warn("standby", f"{seen}, but synchronous_commit = {level}: no commit waits for it", advice)
    return ok("standby", f"{seen}: every commit waits for it")
