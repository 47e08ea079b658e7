"""What is to be known before the tables are taken back: who uses the cloud, and what would be lost."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.util.exc import CommandError
from sqlalchemy import Column, Connection, Engine, Table, and_, create_engine, func, inspect, literal, select, table
from sqlalchemy import column as named
from sqlalchemy.pool import StaticPool

from controller.conf.settings import Settings
from controller.db.base import Base
from controller.db.database import make_engine
from controller.db.models import Service
from controller.domain.errors import ConfigurationError, InvalidParameter
from controller.operations.cloud import Transaction
from controller.operations.database import schema
from controller.operations.services import services

_OWN_TABLE = "alembic_version"
Columns = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Loss:
    """A table, or a column of one, that would go, and how many rows hold something in it."""

    table: str
    column: str
    rows: int

    def __str__(self) -> str:
        what = f"column {self.table}.{self.column}" if self.column else f"table {self.table}"
        return f"{what}: {self.rows} row{'' if self.rows == 1 else 's'}"


def users(tx: Transaction, *, by_heartbeats: bool = True) -> list[str]:
    """What uses the cloud now, as far as the database knows: its services and, as a service of release 0.1 writes no
    row, heartbeats that some controller has taken a short while ago (``by_heartbeats``)."""
    inspector = inspect(tx.session.connection())
    found: list[str] = []
    if inspector.has_table("services"):
        by_process: dict[tuple[str, int], list[Service]] = defaultdict(list)
        for service in services.running(tx):
            by_process[service.machine, service.pid].append(service)
        for (machine, pid), running in by_process.items():
            names, seen_at = ", ".join(s.name for s in running), max(s.seen_at for s in running)
            found.append(f"{names} on {machine} (process {pid}, heard of at {seen_at:%FT%TZ})")
    if by_heartbeats and inspector.has_table("hosts"):
        found += filter(None, [services.heartbeats_taken(tx)])
    return found


def losses(settings: Settings, revision: str) -> list[Loss]:
    """What `downgrade` to this revision would take away, found by doing it to empty tables.

    Raises:
        InvalidParameter: there is no such revision below the one that the database has.
        ConfigurationError: the tables are of a newer release.
    """
    current = schema.current(settings)
    if current is None:
        return []
    if current not in schema.revisions():
        reason = f"the database's tables are at revision {current} of a newer release: take them back with that one"
        raise ConfigurationError(reason=reason)
    before, after = _before_and_after(current, revision)
    engine = make_engine(settings)
    try:
        with engine.connect() as connection:
            return [loss for name in sorted(before) for loss in _of_table(connection, name, before[name], after)]
    finally:
        engine.dispose()


def _before_and_after(current: str, revision: str) -> tuple[Columns, Columns]:
    with _scratch() as engine:
        try:
            _run(engine, command.upgrade, current)
            before = _columns(engine)
            _run(engine, command.downgrade, revision)
        except CommandError as error:
            reason = f"it is no revision below {current}, which the database has ({error})"
            raise InvalidParameter(parameter="REVISION", value=revision[:40], reason=reason) from error
        with engine.connect() as connection:
            if MigrationContext.configure(connection).get_current_revision() == current:
                raise InvalidParameter(parameter="REVISION", value=revision[:40], reason="the database has it already")
        return before, _columns(engine)


@contextmanager
def _scratch() -> Iterator[Engine]:
    """A database in memory."""
    engine = create_engine("sqlite://", poolclass=StaticPool)
    try:
        yield engine
    finally:
        engine.dispose()


def _run(engine: Engine, action: Any, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", "migrations:")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        action(config, revision)


def _columns(engine: Engine) -> Columns:
    inspector = inspect(engine)
    return {t: [c["name"] for c in inspector.get_columns(t)] for t in inspector.get_table_names() if t != _OWN_TABLE}


def _of_table(connection: Connection, name: str, columns: Sequence[str], after: Columns) -> Iterator[Loss]:
    if name not in after:
        yield Loss(name, "", _count(connection, name))
        return
    for column in columns:
        if column not in after[name]:
            yield Loss(name, column, _count(connection, name, column))


def _count(connection: Connection, name: str, column: str = "") -> int:
    """How many rows there are; of a column, those where it is neither NULL nor what a new row has."""
    query = select(func.count()).select_from(table(name))
    if column:
        model = Base.metadata.tables.get(name)
        query = query.where(_holds_something(model, column))
    return connection.scalar(query) or 0


def _holds_something(model: Table | None, column: str) -> Any:
    declared: Column[Any] | None = model.c.get(column) if model is not None else None
    if declared is None or declared.server_default is None:
        return named(column).is_not(None)
    default = str(declared.server_default.arg)  # type: ignore[attr-defined]
    value = literal(declared.type.python_type(default), declared.type)
    return and_(named(column).is_not(None), named(column, declared.type) != value)
