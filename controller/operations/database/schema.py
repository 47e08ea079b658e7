"""The database's schema: upgraded and downgraded by Alembic, whatever the engine."""

import pkgutil
import random
import time
from functools import cache
from pathlib import Path
from typing import Literal

from sqlalchemy import Connection, column, inspect, select, table
from sqlalchemy.exc import DBAPIError

from controller.conf.settings import Settings
from controller.db.database import Database, is_race, make_engine
from controller.db.models import Cloud
from controller.domain.errors import ConfigurationError
from controller.domain.release import RELEASE, oldest_that_speaks, parts
from controller.domain.wire import VERSION
from controller.operations.cloud import Transaction
from migrations import versions

# Where Alembic keeps the revision.
_KEPT, _REVISION = "alembic_version", "version_num"
# How often a migration is begun that loses a race against the services of a running cloud.
_TRIES = 10


def upgrade(settings: Settings, revision: str = "head") -> None:
    """Bring the schema up to a revision; nothing happens where it is there already, or newer and fit for this release.

    Raises:
        ConfigurationError: the tables are of a newer release that lets this one not run.
    """
    found = current(settings)
    if found is None or found in revisions():
        _run(settings, "upgrade", revision)
        return
    database = Database(settings)
    try:
        with database.engine.connect() as connection:
            if reason := problem_of(connection):
                raise ConfigurationError(reason=reason)
    finally:
        database.close()


def downgrade(settings: Settings, revision: str) -> None:
    """Bring the schema down to a revision; ``base`` removes it."""
    _run(settings, "downgrade", revision)


def current(settings: Settings) -> str | None:
    """The revision that the database has; None: it is empty."""
    database = Database(settings)
    try:
        with database.engine.connect() as connection:
            return current_of(connection)
    finally:
        database.close()


def current_of(connection: Connection) -> str | None:
    """``current`` by a connection. Read without Alembic, which takes 20 MiB of every service that is looking."""
    if not inspect(connection).has_table(_KEPT):
        return None
    return connection.scalar(select(column(_REVISION)).select_from(table(_KEPT)))


def newest() -> str:
    """The revision that this release works with."""
    return revisions()[0]


@cache
def revisions() -> tuple[str, ...]:
    """The revisions that this release knows, the newest first: what the names of their files begin with."""
    return tuple(sorted((m.name.partition("_")[0] for m in pkgutil.iter_modules(versions.__path__)), reverse=True))


def problem(tx: Transaction) -> str:
    """See ``problem_of``."""
    return problem_of(tx.session.connection())


def problem_of(connection: Connection) -> str:
    """Why this release cannot run on the database's tables, and what to do; empty: it can.

    It runs on those of its own revision, and on newer ones unless an operator, or the migration that made them, has
    said that it may not: migrations add, and what is new has defaults.
    """
    found = current_of(connection)
    if found is None:
        return "the database is empty: `pileus init`, or `pileus db upgrade`, makes its tables"
    if found in revisions() and found != newest():
        return (
            f"the database's tables are at revision {found}, too old for release {RELEASE}, which wants {newest()}: "
            "`pileus db upgrade` brings them up, and services of the release before go on with them"
        )
    oldest = _oldest_release(connection, sure=found == newest())
    if oldest is not None and parts(oldest) <= parts(RELEASE):
        return ""
    if found == newest():
        return f"no release older than {oldest} may run in this cloud any more, and this is {RELEASE}: install {oldest}"
    wanted = oldest or "that made them"
    return (
        f"the database's tables are at revision {found} of a newer release, release {RELEASE} works with {newest()}: "
        f"install the release {wanted}, or with that one take them back: `pileus db downgrade {newest()}`"
    )


def ensure_cloud_row(tx: Transaction) -> None:
    """Write the cloud's own row, once.

    Raises:
        ConfigurationError: the database is another cloud's.
    """
    cloud_id = tx.settings.general.cloud_id
    row = tx.session.scalar(select(Cloud))
    if row is None:
        oldest = oldest_that_speaks(VERSION)  # nothing older has ever run here
        tx.session.add(Cloud(id=1, cloud_id=cloud_id, network_epoch=0, oldest_release=oldest, created_at=tx.now))
    elif row.cloud_id != cloud_id:
        raise ConfigurationError(reason=f"the database is cloud {row.cloud_id}'s, [DEFAULT] cloud_id is {cloud_id}")


def _oldest_release(connection: Connection, *, sure: bool) -> str | None:
    """What the cloud's row says; the first release of all where there is no row yet, None where there is no column,
    unless it is ``sure`` that there is one."""
    if not sure and "oldest_release" not in {c["name"] for c in inspect(connection).get_columns("cloud")}:
        return None
    return connection.scalar(select(Cloud.oldest_release)) or oldest_that_speaks(1)


def _run(settings: Settings, action: Literal["upgrade", "downgrade"], revision: str) -> None:
    # Only where it is used: a service that runs changes no table.
    from alembic import command
    from alembic.config import Config

    if settings.database_url.startswith("sqlite:///"):
        Path(settings.database_url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    engine = make_engine(settings, migrating=True)
    config = Config()
    config.set_main_option("script_location", "migrations:")
    try:
        for attempt in range(1, _TRIES + 1):
            try:
                with engine.begin() as connection:
                    config.attributes["connection"] = connection
                    getattr(command, action)(config, revision)
            except DBAPIError as error:
                # On a cloud in use it locks table after table, in another order than the services. MariaDB commits each
                # change of a table, and ends the services' transactions instead.
                if attempt == _TRIES or not is_race(error) or engine.dialect.name in ("mysql", "mariadb"):
                    raise
                time.sleep(random.uniform(0.1, 0.5) * attempt)  # noqa: S311 - no secret
            else:
                return
    finally:
        engine.dispose()
