"""The database's schema: upgraded and downgraded by Alembic, whatever the engine."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import select

from controller.conf.settings import Settings
from controller.db.database import Database, make_engine
from controller.db.models import Cloud
from controller.domain.errors import ConfigurationError
from controller.operations.cloud import Transaction


def upgrade(settings: Settings, revision: str = "head") -> None:
    """Bring the schema up to a revision; nothing happens where it is there already."""
    _run(settings, command.upgrade, revision)


def downgrade(settings: Settings, revision: str) -> None:
    """Bring the schema down to a revision; ``base`` removes it."""
    _run(settings, command.downgrade, revision)


def current(settings: Settings) -> str | None:
    """The revision that the database has; None: it is empty."""
    database = Database(settings)
    try:
        with database.engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    finally:
        database.close()


def newest() -> str:
    """The revision that this release works with."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


def ensure_cloud_row(tx: Transaction) -> None:
    """Write the cloud's own row, once.

    Raises:
        ConfigurationError: the database is another cloud's.
    """
    cloud_id = tx.settings.general.cloud_id
    row = tx.session.scalar(select(Cloud))
    if row is None:
        tx.session.add(Cloud(id=1, cloud_id=cloud_id, network_epoch=0, created_at=tx.now))
    elif row.cloud_id != cloud_id:
        raise ConfigurationError(reason=f"the database is cloud {row.cloud_id}'s, [DEFAULT] cloud_id is {cloud_id}")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "migrations:")
    return config


def _run(settings: Settings, action: object, revision: str) -> None:
    assert callable(action)
    if settings.database_url.startswith("sqlite:///"):
        Path(settings.database_url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    engine = make_engine(settings, migrating=True)
    config = _config()
    try:
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            action(config, revision)
    finally:
        engine.dispose()
