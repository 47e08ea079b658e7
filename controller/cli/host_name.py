"""The name of the host of a cloud on one machine: stored with the cloud, for the machine may be renamed."""

import re
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import structlog
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from controller.cli.configuration_file import changed_text, write_private
from controller.cli.operator import Operator
from controller.conf.settings import Settings
from controller.db.models import Host, Instance
from controller.domain.errors import DatabaseUnavailable
from controller.operations.cloud import Transaction

log = structlog.get_logger(__name__)

_SIMULATED = re.compile(r"-\d{4,}$")


def store_host_name(operator: Operator) -> None:
    """Write the name of the embedded host into the configuration, once: of a cloud that was made before names were
    stored, that of the host that it has."""
    settings = operator.settings
    if settings.general.host or not settings.embedded_bus or not operator.exists:
        return
    name = _name_in_database(operator) or _name_in_journal(settings) or socket.gethostname()
    log.info("the name of this host is stored", host=name)
    write_private(operator.file, changed_text(operator.file.read_text(), {("DEFAULT", "host"): name}))


def _name_in_database(operator: Operator) -> str:
    """That of the host with the most instances."""

    def read(tx: Transaction) -> str:
        carried = func.count(Instance.id)
        query = select(Host.id).outerjoin(Instance, Instance.host_id == Host.id).group_by(Host.id)
        return tx.session.scalar(query.order_by(carried.desc(), func.min(Host.created_at), Host.id).limit(1)) or ""

    try:
        return _short(operator.settings, operator.read(read))
    except (DatabaseUnavailable, SQLAlchemyError):
        return ""  # there is none yet


def _name_in_journal(settings: Settings) -> str:
    file: Path = settings.state_dir / "agent" / "journal.db"
    if not file.exists():
        return ""
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as db:
            (found,) = db.execute("SELECT min(host) FROM boots").fetchone()
    except sqlite3.Error:
        return ""
    return _short(settings, found or "")


def _short(settings: Settings, host: str) -> str:
    return _SIMULATED.sub("", host) if settings.compute.driver == "simulated" else host
