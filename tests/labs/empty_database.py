"""Databases with this release's tables and no rows."""

import shutil
import tempfile
from functools import cache
from pathlib import Path

from controller.conf import Settings, load_settings
from controller.operations.database import schema

_SQLITE = "sqlite:///"


def create_tables(settings: Settings) -> None:
    """Make the tables as the migrations do. A new file of SQLite is copied from one that they made in this process."""
    if settings.database_url.startswith(_SQLITE):
        file = Path(settings.database_url.removeprefix(_SQLITE))
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(Path(_folder().name) / "empty.sqlite", file)
            return
    schema.upgrade(settings)


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Removed when the process ends."""
    folder = tempfile.TemporaryDirectory(prefix="pileus-empty-")
    url = f"{_SQLITE}{folder.name}/empty.sqlite"
    schema.upgrade(load_settings(None, {("DEFAULT", "state_dir"): folder.name, ("database", "url"): url}))
    return folder
