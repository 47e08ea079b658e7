"""The engine, and transactions that are tried again when they lose a race."""

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import structlog
from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    DisconnectionError,
    IntegrityError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, sessionmaker

from controller.conf.settings import Settings
from controller.domain.errors import ClaimConflict, ConfigurationError, DatabaseUnavailable
from controller.outages import DATABASE, OUTAGES

T = TypeVar("T")
log = structlog.get_logger(__name__)

# SQLSTATEs and MariaDB error numbers of a lost race: serialization failure, deadlock, lock not available.
_RACE_STATES = {"40001", "40P01", "55P03"}
_RACE_NUMBERS = {1205, 1213, 1020}
# A connection that was used so short a time ago is taken for living.
_TRUSTED_IDLE_S = 1.0
_CONNECT_S = 5
_DRIVERS = {
    "postgresql": "postgresql+psycopg://user:password@host/pileus",
    "mysql": "mysql+pymysql://user:password@host/pileus",
    "mariadb": "mariadb+pymysql://user:password@host/pileus",
    "sqlite": "sqlite:////path/to/pileus.db",
}
# The server looks after a client whose machine may have gone: after a minute it ends what that one had begun.
_PROBES = "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3"


class Database:
    """One process's connections to the database. Work is passed in as a function of a session.

    ``pause`` and ``jitter`` make the wait before a lost race is run again.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        pause: Callable[[float], None] = time.sleep,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._settings = settings
        self._pause = pause
        self._jitter = jitter
        self.engine = make_engine(settings)
        self._reader = sessionmaker(self.engine, expire_on_commit=False)
        # Only PostgreSQL gains by it: SQLite has no round trips, and MariaDB makes one more at each change of the mode.
        postgresql = self.engine.dialect.name == "postgresql"
        bare = self.engine.execution_options(isolation_level="AUTOCOMMIT") if postgresql else self.engine
        self._asker = sessionmaker(bare, expire_on_commit=False)
        self._writer = sessionmaker(self.engine.execution_options(pileus_write=True), expire_on_commit=False)

    def read(self, work: Callable[[Session], T]) -> T:
        """Run ``work`` on a snapshot; what it writes is lost.

        Raises:
            DatabaseUnavailable: it cannot be reached, or has no connection free.
        """
        return self._read(self._reader, work)

    def ask(self, work: Callable[[Session], T]) -> T:
        """``read`` for work that does nothing but SELECT: on PostgreSQL without a transaction around it, whose
        statements would be two more. Each SELECT sees what is committed when it begins, as in ``read``.

        Raises:
            DatabaseUnavailable: see ``read``.
        """
        return self._read(self._asker, work)

    def _read(self, make: Callable[[], Session], work: Callable[[Session], T]) -> T:
        for last in (False, True):
            try:
                with make() as session:
                    found = work(session)
                OUTAGES.over(DATABASE)
                return found  # noqa: TRY300 - the session's end is part of it
            except (OperationalError, InterfaceError, PoolTimeout) as error:
                if last or not _was_dead(error):
                    raise unavailable(error) from error
        raise AssertionError("unreachable")

    def write(self, work: Callable[[Session], T]) -> T:
        """Run ``work`` in one transaction; after a lost race it is run again from the start, so it must have
        no effect but on its session.

        Raises:
            DatabaseUnavailable: it cannot be reached; the transaction may or may not have been committed.
            ClaimConflict, IntegrityError: the race was lost every time.
        """
        tries = self._settings.database.retries
        for attempt in range(1, tries + 1):
            committing = False
            try:
                with self._writer.begin() as session:
                    result = work(session)
                    committing = True
                OUTAGES.over(DATABASE)
                return result  # noqa: TRY300 - the commit is part of it
            except (ClaimConflict, IntegrityError):
                if attempt == tries:
                    raise
            except (DBAPIError, PoolTimeout) as error:
                if not is_race(error) and not (attempt == 1 and not committing and _was_dead(error)):
                    if isinstance(error, OperationalError | InterfaceError | PoolTimeout):
                        raise unavailable(error) from error
                    raise
                if attempt == tries:
                    raise unavailable(error) from error
            self._pause(self._jitter(0, 0.01 * 2**attempt))
        raise AssertionError("unreachable")

    def server_time(self) -> datetime | None:
        """What the server's clock shows, see ``server_time``. Raises DatabaseUnavailable."""
        if self.engine.dialect.name == "sqlite":
            return None
        return self.read(lambda session: server_time(session.connection()))

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def server_time(connection: Connection) -> datetime | None:
    """What the clock of the database's server shows; None with SQLite, which has only ours."""
    if connection.dialect.name == "sqlite":
        return None
    postgresql = connection.dialect.name == "postgresql"
    now = connection.scalar(text("SELECT clock_timestamp()" if postgresql else "SELECT UTC_TIMESTAMP(6)"))
    assert isinstance(now, datetime)
    return now if now.tzinfo else now.replace(tzinfo=UTC)


def engine_url(words: str) -> URL:
    """The URL of an engine that can be used here; what is said of a wrong one holds no password.

    Raises:
        ConfigurationError
    """
    try:
        url = make_url(words)
    except (ArgumentError, ValueError) as error:
        raise ConfigurationError(reason=f"[database] url is no URL such as {_DRIVERS['postgresql']}") from error
    wanted = _DRIVERS.get(url.get_backend_name())
    if wanted is None:
        reason = f"[database] url: {url.drivername!r} is no engine of ours, which are {', '.join(_DRIVERS)}"
        raise ConfigurationError(reason=reason)
    try:
        url.get_dialect().import_dbapi()
    except (NoSuchModuleError, ImportError) as error:
        reason = f"[database] url: the driver of {url.drivername!r} cannot be loaded ({error}); ours is {wanted}"
        raise ConfigurationError(reason=reason) from error
    return url


def make_engine(settings: Settings, *, migrating: bool = False) -> Engine:
    """An engine for one of the three: SQLite, PostgreSQL, MariaDB.

    ``migrating``: a statement may take as long as it takes, and SQLite does not check foreign keys, as it may have to
    copy a table and drop the old one.

    Raises:
        ConfigurationError: see ``engine_url``.
    """
    url = engine_url(settings.database_url)
    options: dict[str, Any] = {
        "pool_size": settings.database.pool_size,
        "max_overflow": settings.database.max_overflow,
        "pool_timeout": settings.database.pool_timeout_s,
        "pool_recycle": 1800,
    }
    lock_s = settings.database.lock_timeout_s
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"timeout": lock_s}, **options)
        _prepare_sqlite(engine, foreign_keys=not migrating)
        return engine
    answer_s, idle_s = settings.database.answer_timeout_s, settings.database.idle_transaction_s
    if url.get_backend_name() == "postgresql":
        timeouts = f"-c lock_timeout={lock_s * 1000} -c idle_in_transaction_session_timeout={idle_s * 1000} {_PROBES}"
        connect_args: dict[str, Any] = {"connect_timeout": _CONNECT_S, "options": timeouts}
    else:
        connect_args = {
            "connect_timeout": _CONNECT_S,
            "read_timeout": _CONNECT_S,
            "write_timeout": answer_s,
            "charset": "utf8mb4",
            "init_command": f"SET innodb_lock_wait_timeout={lock_s}, idle_transaction_timeout={idle_s}, "
            "time_zone='+00:00'",
        }
    engine = create_engine(url, isolation_level="READ COMMITTED", connect_args=connect_args, **options)
    # Rows that are inserted together are one statement also where nothing is to come back.
    engine.dialect.use_insertmanyvalues_wo_returning = url.get_backend_name() == "postgresql"
    _ping_idle_connections(engine)
    if url.get_backend_name() != "postgresql":
        _prepare_mariadb(engine, None if migrating else answer_s)
    elif not migrating:
        _prepare_postgresql(engine, answer_s)
    return engine


def _ping_idle_connections(engine: Engine) -> None:
    """Ask a connection whether it still lives before it is used again, if it has been idle: the server may have been
    restarted meanwhile. ``pool_pre_ping`` asks each time, which costs a busy service a round trip a transaction."""

    @event.listens_for(engine, "checkin")
    def checkin(_connection: Any, record: Any) -> None:
        record.info["idle_since"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def checkout(connection: Any, record: Any, _proxy: Any) -> None:
        idle_s = time.monotonic() - record.info.get("idle_since", time.monotonic())
        if idle_s < _TRUSTED_IDLE_S:
            return
        try:
            alive = engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise DisconnectionError(str(error)) from error
        if not alive:
            raise DisconnectionError("the connection does not live any more")


def _prepare_postgresql(engine: Engine, answer_s: float) -> None:
    """Connections that wait ``answer_s`` for an answer, not for ever."""
    # Only where it is used: a cloud on SQLite has no psycopg.
    from controller.db.bounded_wait import BoundedConnector

    patience = BoundedConnector(answer_s)

    @event.listens_for(engine, "do_connect")
    def connect(_dialect: Any, _record: Any, arguments: Any, options: Any) -> Any:
        return patience.connect(*arguments, **options)


def _prepare_mariadb(engine: Engine, answer_s: float | None) -> None:
    """Connections that wait for the server's greeting as long as for its port, and ``answer_s`` for an answer: PyMySQL
    has one time-out for both, and takes no other once it is connected."""

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: Any) -> None:
        connection._read_timeout = answer_s


def _prepare_sqlite(engine: Engine, *, foreign_keys: bool) -> None:
    """WAL, foreign keys, and commits that are on the disk when they return (FULL): a request that was answered outlives
    a power cut, and no address is given out twice. A write transaction takes the writer's lock when it begins: one that
    starts by reading and then wants to write would fail at once, however long the timeout
    (https://docs.sqlalchemy.org/en/20/dialects/sqlite.html#pysqlite-serializable)."""

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        keys = "ON" if foreign_keys else "OFF"
        for pragma in ("journal_mode=WAL", f"foreign_keys={keys}", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        write = connection.get_execution_options().get("pileus_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def is_race(error: Exception) -> bool:
    """Whether a transaction was ended for another one's sake: it may be run again."""
    if not isinstance(error, DBAPIError):
        return False
    original = error.orig
    if getattr(original, "sqlstate", None) in _RACE_STATES:
        return True
    args: tuple[Any, ...] = getattr(original, "args", ())
    return bool(args) and (args[0] in _RACE_NUMBERS or "database is locked" in str(args[0]))


def _was_dead(error: Exception) -> bool:
    """Whether the connection is that a statement went over: after a restart of the server, another one may live."""
    return isinstance(error, DBAPIError) and error.connection_invalidated and error.statement is not None


def unavailable(error: Exception) -> DatabaseUnavailable:
    """The error that says so, without the URL and its password."""
    original = getattr(error, "orig", None) or error
    return DatabaseUnavailable(what=DATABASE, reason=str(original).strip().splitlines()[0])
