"""Whether a commit outlives a power cut: what the database's settings say of it."""

from collections.abc import Iterable, Sequence
from contextlib import suppress

from sqlalchemy import Connection

from controller.cli.checks.item import Item, Subject, ok, warn
from controller.cli.checks.variables import show, variable

_SQLITE_LEVELS = ("OFF", "NORMAL", "FULL", "EXTRA")


def sqlite(connection: Connection, _subject: Subject) -> Sequence[Item]:
    """As our own connections have it; nothing but this program sets it."""
    level = int(connection.exec_driver_sql("PRAGMA synchronous").scalar_one())
    seen = f"synchronous = {_SQLITE_LEVELS[level]}"
    if level < _SQLITE_LEVELS.index("FULL"):
        return [_lossy([seen], "this release sets FULL itself: what else opens the file?")]
    return [_durable(seen)]


def postgresql(connection: Connection, _subject: Subject) -> Sequence[Item]:
    """https://www.postgresql.org/docs/current/wal-reliability.html: fsync and full_page_writes keep the files whole,
    synchronous_commit the last transactions."""
    values = {name: show(connection, name) for name in ("fsync", "synchronous_commit", "full_page_writes")}
    lossy = [f"{name} = {value}" for name, value in values.items() if value == "off"]
    if lossy:
        return [_lossy(lossy, f"set {_list(values)} to on in postgresql.conf, and look at `ALTER ROLE ... SET`")]
    return [_durable(", ".join(f"{name} = {value}" for name, value in values.items()))]


def mariadb(connection: Connection, _subject: Subject) -> Sequence[Item]:
    """innodb_flush_log_at_trx_commit 3 syncs a group commit as 1 does (sync_binlog matters only with a binary log)."""
    wanted = {"innodb_flush_log_at_trx_commit": ("1", "3"), "innodb_doublewrite": ("1",)}
    if variable(connection, "log_bin") == "1":
        wanted["sync_binlog"] = ("1",)
    values = {}
    for name in wanted:
        with suppress(LookupError):
            values[name] = variable(connection, name)
    lossy = [f"{name} = {value}" for name, value in values.items() if value not in wanted[name]]
    method = variable(connection, "innodb_flush_method")
    if method.lower() == "nosync":
        lossy.append(f"innodb_flush_method = {method}")
    if lossy:
        return [_lossy(lossy, f"set {_list(wanted)} to 1, innodb_flush_method to O_DIRECT or fsync")]
    return [_durable(", ".join(f"{name} = {value}" for name, value in values.items()))]


def _durable(seen: str) -> Item:
    return ok("durability", f"a commit is on the disk when it is answered ({seen})")


def _lossy(settings: Sequence[str], advice: str) -> Item:
    seen = f"{', '.join(settings)}: a power cut loses requests that were answered, while their guests run on"
    return warn("durability", seen, advice)


def _list(names: Iterable[str]) -> str:
    *first, last = list(names)
    return f"{', '.join(first)} and {last}" if first else last
