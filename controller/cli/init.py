"""`pileus init`: a new cloud below a folder; done twice, it changes nothing."""

import os
import socket
import sys
from pathlib import Path

import click

from controller.cli.cloudrc import Credentials, read_credentials, write_cloudrc
from controller.cli.configuration_file import changed_text, new_text, write_private
from controller.cli.free_resources import free_port, free_range, routes
from controller.cli.host_name import store_host_name
from controller.cli.operator import Operator, pass_operator
from controller.conf.load import FILE_NAME
from controller.conf.settings import Settings
from controller.db.models import AccessKey, Project, User
from controller.domain.errors import AlreadyExists, ConfigurationError, NotFound
from controller.domain.ids import IdSource
from controller.operations.accounts import projects, users
from controller.operations.cloud import Transaction
from controller.operations.database import schema
from controller.operations.instances import instance_types
from controller.operations.secrets import create_key_file, hash_password, hash_token

PROJECT, USER = "default", "admin"


@click.command()
@click.option("--simulated", type=click.IntRange(1, 10000), help="Simulated hosts instead of this machine.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the API; else the default, or the next free one.")
@click.option("--cidr-pool", help="Range for projects' networks; else one that no route of this machine overlaps.")
@pass_operator
def init(operator: Operator, simulated: int | None, port: int | None, cidr_pool: str | None) -> None:
    """Set up a cloud: configuration, keys, database, first project and user, cloudrc."""
    if operator.config is not None and not operator.exists:
        raise click.UsageError(f"--config names no file; without it init writes {FILE_NAME} into the state folder")
    file = operator.file
    folder = operator.load().state_dir if operator.config else operator.folder
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    if operator.exists:
        _change(file, operator.settings, simulated, port, cidr_pool)
    else:
        write_private(file, new_text(_first_values(folder, simulated, port, cidr_pool)))
    settings = operator.load()
    create_key_file(settings.secret_key_file)
    if not settings.database.url:
        # SQLite gives its journals the mode of the database.
        os.close(os.open(settings.state_dir / "pileus.db", os.O_WRONLY | os.O_CREAT, 0o600))
    schema.upgrade(settings)
    store_host_name(operator)
    settings = operator.load()
    cloudrc = folder / "cloudrc"
    operator.write(schema.ensure_cloud_row)
    operator.write(instance_types.seed)
    credentials = operator.write(lambda tx: _credentials(tx, read_credentials(cloudrc)))
    write_cloudrc(cloudrc, settings, credentials, Path(sys.executable).parent, in_state=operator.config is None)
    click.echo(f"cloud {settings.general.cloud_id} below {folder}, credentials in {cloudrc}")


def _first_values(
    folder: Path, simulated: int | None, port: int | None, cidr_pool: str | None
) -> dict[tuple[str, str], object]:
    default = Settings()
    values: dict[tuple[str, str], object] = {
        ("DEFAULT", "state_dir"): folder,
        ("DEFAULT", "cloud_id"): IdSource.system().cloud_id(),
        # The machine may be renamed: its guests are still this host's.
        ("DEFAULT", "host"): socket.gethostname(),
    }
    api_port = port or free_port(default.api.listen_port)
    if api_port != default.api.listen_port:
        values["api", "listen_port"] = api_port
    metadata_port = free_port(default.network.metadata_port, "0.0.0.0", avoid=[api_port])  # noqa: S104 - only probed
    if metadata_port != default.network.metadata_port:
        values["network", "metadata_port"] = metadata_port
    if simulated:
        values["network", "driver"] = "none"
        values["compute", "driver"] = "simulated"
        values["compute", "simulated_hosts"] = simulated
    pool = cidr_pool or (default.network.project_cidr_pool if simulated else free_range(routes()))
    if pool != default.network.project_cidr_pool:
        values["network", "project_cidr_pool"] = pool
    return values


def _change(file: Path, settings: Settings, simulated: int | None, port: int | None, cidr_pool: str | None) -> None:
    """What was asked for explicitly overrides the file of an earlier run; a cloud never changes its kind."""
    if simulated and settings.compute.driver != "simulated":
        raise ConfigurationError(reason=f"{file} is of a cloud of real guests: simulated hosts need another --state")
    wanted: dict[tuple[str, str], object] = {}
    if simulated and simulated != settings.compute.simulated_hosts:
        wanted["compute", "simulated_hosts"] = simulated
    if port and port != settings.api.listen_port:
        wanted["api", "listen_port"] = port
    if cidr_pool and cidr_pool != settings.network.project_cidr_pool:
        wanted["network", "project_cidr_pool"] = cidr_pool
    if wanted:
        write_private(file, changed_text(file.read_text(), wanted))


def _credentials(tx: Transaction, known: Credentials | None) -> Credentials:
    """Those of an earlier run while they are valid; else new ones."""
    project = _project(tx)
    if known and _are_valid(tx, known):
        return known
    password = tx.ids.secret(24)
    try:
        user = users.create_user(tx, USER, project.id, password)
    except AlreadyExists:
        user = users.get_user(tx, USER)
        user.password_hash = hash_password(password)
    key, secret = users.create_access_key(tx, user.id)
    return Credentials(key.id, secret, user.name, password, users.issue_token(tx, user))


def _project(tx: Transaction) -> Project:
    try:
        return projects.get_project(tx, PROJECT)
    except NotFound:
        return projects.create_project(tx, PROJECT)


def _are_valid(tx: Transaction, known: Credentials) -> bool:
    key = tx.session.get(AccessKey, known.access_key)
    user = tx.session.get(User, key.user_id) if key else None
    return bool(key and key.enabled and user and user.enabled and user.token_sha256 == hash_token(known.token))
