"""The services' database: real SQLite and the real schema, that can fail at any statement and at the commit."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy import event
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler
from sqlalchemy.exc import OperationalError

from controller.conf.settings import Settings
from controller.db.database import Database
from controller.domain.networks import NetworkKind
from controller.domain.placement_groups import GroupStrategy
from controller.operations.cloud import Transaction
from controller.operations.instances import placement_groups
from controller.operations.networks import networks
from tests.labs.cloud import TestCloud, make_settings
from tests.simulation.faults import Fault
from tests.simulation.simulator import Simulator, Task

_OPTIONS = {
    "database__pool_size": 40,
    "controller__sweep_s": 10.0,
    "controller__host_down_after_s": 60.0,
    "controller__open_registration": "true",
    "compute__heartbeat_s": 20.0,
    "compute__simulated_vcpus": 2,
    "compute__simulated_memory_mib": 2048,
    "compute__simulated_disk_gib": 20,
    "compute__simulated_boot_s": 4.0,
}
# In a statement that leaves out what others have locked, where SQLite has no words for it.
_SKIP_LOCKED = " /* skip locked */"
_SHARE_LOCKED = 0.3
SMALL_CIDR = "10.77.0.0/28"
PINNED_CIDR = "10.78.0.0/24"


class SimulationDatabase:
    """What all seeds of a run share: an empty cloud to copy, and an engine that remembers compiled statements."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file, self._template = folder / "pileus.db", folder / "template.db"
        self._copy = folder / "copy.db"
        self._peeker: sqlite3.Connection | None = None
        made = TestCloud.create(folder, f"sqlite:///{self._template}", **_OPTIONS)
        self.project_id, self.user_id, self.image_id = made.project_id, made.user_id, made.image_id
        self.small_network, self.pinned_network = made.cloud.write(self._networks)
        self.groups = made.cloud.write(self._groups)
        made.close()
        self.settings: Settings = make_settings(folder, f"sqlite:///{self._file}", **_OPTIONS)
        self.database = Database(self.settings, pause=self._pause, jitter=lambda low, high: (low + high) / 2)
        self.others_lock_leases = False
        self._simulator: Simulator | None = None
        self._down_until = 0.0
        self._commit_monitor: Callable[[Task], AbstractContextManager[None]] | None = None
        engine = self.database.engine
        engine.dialect.statement_compiler = _Compiler
        event.listen(engine, "before_cursor_execute", self._statement, retval=True)
        self._commit, self._rollback = engine.dialect.do_commit, engine.dialect.do_rollback
        seams: dict[str, Any] = {"do_commit": self._do_commit, "do_rollback": self._do_rollback}
        vars(engine.dialect).update(seams)

    def begin(self, simulator: Simulator) -> None:
        """A new empty cloud for this simulator's site."""
        self.close()
        for suffix in ("", "-wal", "-shm"):
            self._file.with_name(self._file.name + suffix).unlink(missing_ok=True)
        shutil.copyfile(self._template, self._file)
        self._simulator, self._down_until, self._commit_monitor = simulator, 0.0, None

    def watch_commits(self, commit_monitor: Callable[[Task], AbstractContextManager[None]]) -> None:
        """Have every commit of this site's services happen inside of this."""
        self._commit_monitor = commit_monitor

    def down_until(self, end: float) -> None:
        """The database cannot be reached until then."""
        self._down_until = end

    def peek(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Look into the database from outside; nothing fails here."""
        if self._peeker is None:
            self._peeker = sqlite3.connect(self._file, isolation_level=None)
        return self._peeker.execute(statement, values).fetchall()

    def was_made_by_0_1(self) -> None:
        """The cloud is older than this release: services of 0.1 may be at work."""
        with closing(sqlite3.connect(self._file)) as db, db:
            db.execute("UPDATE cloud SET oldest_release = '0.1.0'")

    def copy(self) -> None:
        """Take a copy of the database, as an operator's backup does."""
        self._copy_to(self._file, self._copy)

    def restore(self) -> None:
        """Put the copy back; no service may be running."""
        self._copy_to(self._copy, self._file)

    def close(self) -> None:
        """Close all connections."""
        if self._peeker is not None:
            self._peeker.close()
            self._peeker = None
        self.database.close()

    # --- what every cloud has ---

    def _networks(self, tx: Transaction) -> tuple[str, str]:
        """One with thirteen addresses, and one whose leases are still to be imported."""
        small = networks.create_network(tx, self.project_id, "small", SMALL_CIDR)
        tx.session.flush()
        pinned = networks.create_network(tx, self.project_id, "pinned", PINNED_CIDR, kind=NetworkKind.PINNED)
        return small.id, pinned.id

    def _groups(self, tx: Transaction) -> tuple[str, ...]:
        for strategy in GroupStrategy:
            placement_groups.create_placement_group(tx, self.project_id, strategy.value, strategy.value)
        return tuple(strategy.value for strategy in GroupStrategy)

    @staticmethod
    def _copy_to(source: Path, target: Path) -> None:
        with closing(sqlite3.connect(source)) as there, closing(sqlite3.connect(target)) as here:
            there.backup(here)

    # --- seams ---

    def _pause(self, seconds: float) -> None:
        if self._simulator is not None:
            self._simulator.pause(seconds)

    def _statement(self, _connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> tuple[str, Any]:
        simulator = self._simulator
        if simulator is None or simulator.current is None or simulator.current.dead:
            return statement, values
        simulator.point(statement[:40])
        if simulator.now < self._down_until or simulator.faults.strikes(Fault.STATEMENT_FAILS):
            simulator.note(f"statement fails: {statement[:60]!r}")
            raise _failure("server closed the connection unexpectedly")
        if statement == "BEGIN IMMEDIATE":
            simulator.current.writing = True
        elif simulator.current.writing and simulator.faults.strikes(Fault.RACE_LOST):
            raise _failure("database is locked: a race that was lost")
        if self.others_lock_leases and statement.endswith(_SKIP_LOCKED) and self._are_locked(simulator):
            simulator.note("others have locked some rows for a moment")
            return f"SELECT * FROM ({statement}) LIMIT {simulator.random.randint(0, 1)}", values
        return statement, values

    @staticmethod
    def _are_locked(simulator: Simulator) -> bool:
        return not simulator.faults.calm and simulator.random.random() < _SHARE_LOCKED

    def _do_commit(self, connection: Any) -> None:
        simulator = self._simulator
        if simulator is None or simulator.current is None or simulator.current.dead:
            self._commit(connection)
            return
        try:
            simulator.point("commit")
            if simulator.now < self._down_until or simulator.faults.strikes(Fault.COMMIT_FAILS):
                simulator.note("commit fails, nothing was committed")
                raise sqlite3.OperationalError("server closed the connection at the commit")
        except BaseException:
            self._do_rollback(connection)  # a server does so when it loses its client
            raise
        with self._commit_monitor(simulator.current) if self._commit_monitor else nullcontext():
            self._commit(connection)
        simulator.current.writing = False
        if simulator.faults.strikes(Fault.COMMIT_UNKNOWN):
            simulator.note("commit fails, but it was committed")
            raise sqlite3.OperationalError("server closed the connection at the commit")
        simulator.point("committed")

    def _do_rollback(self, connection: Any) -> None:
        self._rollback(connection)
        if self._simulator is not None and self._simulator.current is not None:
            self._simulator.current.writing = False


class _Compiler(SQLiteCompiler):
    """SQLite's, which says where a real engine leaves out locked rows."""

    def for_update_clause(self, select: Any, **_: Any) -> str:
        """A remark."""
        return _SKIP_LOCKED if select._for_update_arg.skip_locked else ""


def _failure(reason: str) -> OperationalError:
    return OperationalError("", None, sqlite3.OperationalError(reason))


def ids_of(seed: int) -> Random:
    """The randomness of a seed's ids: of its own, so that a fault more does not change every id."""
    return Random(f"ids of {seed}")


def shared_memory() -> str | None:
    """Where files cost no disk, if there is such a place."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None
