"""The journal's SQLite file: its tables, and what to do when it is corrupt."""

import re
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import structlog

from controller.domain.errors import Unavailable

log = structlog.get_logger(__name__)

_BUSY_TIMEOUT_S = 10
_NUMBER = re.compile(r"-\d{4,}$")
# pending: the newest request is still to be carried out. built: the guest was made, so it has a disk to keep.
# waits: it is not started before a controller has answered. expires_at: until when the request may be started.
# event: the result of the newest request that was carried out, NULL before the first.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS guests (
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
    cause TEXT NOT NULL DEFAULT '',
    reported INTEGER NOT NULL DEFAULT 1,
    gone_at REAL,
    waits INTEGER NOT NULL DEFAULT 0,
    expires_at TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (host, instance)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS guests_pending ON guests (host, position) WHERE pending;
CREATE INDEX IF NOT EXISTS guests_unreported ON guests (host) WHERE NOT reported;
CREATE INDEX IF NOT EXISTS guests_gone ON guests (gone_at) WHERE gone_at IS NOT NULL;
CREATE TABLE IF NOT EXISTS boots (host TEXT PRIMARY KEY, boot_id TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS acceptances (
    host TEXT PRIMARY KEY,
    epoch INTEGER NOT NULL,
    boot_id TEXT NOT NULL,
    old_senders INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
"""
# Columns that came after 0.1; an older agent leaves them at their defaults.
_ADDED = {
    "cause": "TEXT NOT NULL DEFAULT ''",
    "waits": "INTEGER NOT NULL DEFAULT 0",
    "expires_at": "TEXT NOT NULL DEFAULT ''",
}


def open_or_begin(path: Path) -> sqlite3.Connection:
    """The open file, made when there is none; a corrupt one is moved aside, and an empty one made.

    Raises:
        Unavailable: it cannot be opened: no room, no right.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            return _open(path)
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            aside = _move_aside(path)
            log.error("journal is corrupt, an empty one is made", kept_as=str(aside), reason=str(error))  # noqa: TRY400
            return _open(path)
    except (OSError, sqlite3.Error) as error:
        raise Unavailable(what="The agent's journal", reason=f"{path}: {error}") from error


def known_host(path: Path, *, simulated: bool) -> str:
    """The one host of this journal, ``simulated`` ones without their numbers; empty: there is none, or several."""
    if not path.exists():
        return ""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            names = {_NUMBER.sub("", host) if simulated else host for (host,) in db.execute("SELECT host FROM boots")}
    except sqlite3.Error:
        return ""
    return names.pop() if len(names) == 1 else ""


def _open(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        db.executescript(_SCHEMA)
        there = {column for _, column, *_ in db.execute("PRAGMA table_info(guests)")}
        for column in _ADDED.keys() - there:
            db.execute(f"ALTER TABLE guests ADD COLUMN {column} {_ADDED[column]}")
    except BaseException:
        db.close()
        raise
    return db


def _move_aside(path: Path) -> Path:
    aside = path.with_name(f"{path.name}.corrupt-{time.time_ns()}")
    path.rename(aside)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    return aside
