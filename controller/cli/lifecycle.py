"""`pileus up` and `pileus down`: the all-in-one cloud in the background."""

import sys
from contextlib import ExitStack

import click
import structlog
from sqlalchemy import func, select

from controller.cli.daemon import Daemon
from controller.cli.health import api_problem, local_api_url, wait_for
from controller.cli.host_name import store_host_name
from controller.cli.logs import set_up_logging
from controller.cli.operator import Operator, pass_operator
from controller.cli.serve import reload_of, serve_here
from controller.cli.services import make_services
from controller.cli.state_folder import remove_state
from controller.db.models import Host
from controller.domain.errors import CloudError, Unavailable
from controller.installed_services import ORDER, service_names
from controller.operations.database import schema

UP_TIMEOUT_S = 90.0
log = structlog.get_logger(__name__)


@click.command()
@click.option("--foreground", is_flag=True, help="Stay in the foreground, log to standard error.")
@click.option("--hosts", type=click.IntRange(0), default=0, help="Also wait until this many hosts have reported.")
@pass_operator
def up(operator: Operator, foreground: bool, hosts: int) -> None:
    """Start the whole cloud on this machine and wait until it answers."""
    store_host_name(operator)
    settings = operator.load()
    daemon = Daemon(settings.state_dir)
    if foreground:
        _upgrade(operator)
        set_up_logging(settings)
        sys.exit(serve_here(service_names(), settings, reload_of(operator), be_daemon=True))
    with daemon.alone():
        pid, process = daemon.pid(), None
        if pid is None:
            _upgrade(operator)
            process = daemon.start([*operator.arguments, "serve", "--log-file", str(daemon.log_file), "all"])
            pid = process.pid

        def alive() -> bool:
            return process.poll() is None if process else daemon.pid() is not None

        def problem() -> str:
            return api_problem(settings) if daemon.is_ready else "its services are still starting"

        if left := wait_for(problem, UP_TIMEOUT_S, alive):
            reason = left if alive() else "it ended by itself"
            click.echo(f"{daemon.log_tail()}\n(the end of {daemon.log_file})", err=True)
            if process:  # what was up before is not ours to end
                daemon.stop()
            raise Unavailable(what="The cloud", reason=reason)
    _wait_for_hosts(operator, hosts)
    click.echo(f"{'up' if process else 'already up'}: process {pid}, {local_api_url(settings)}, log {daemon.log_file}")


@click.command()
@click.option("--destroy", is_flag=True, help="Also remove all that it made: guests, disks, networks, database.")
@pass_operator
def down(operator: Operator, destroy: bool) -> None:
    """Stop the cloud; the guests go on running, and `pileus up` finds them again."""
    if not operator.exists:
        click.echo(f"nothing to do: {operator.file} does not exist")
        return
    settings = operator.settings
    daemon = Daemon(settings.state_dir)
    with daemon.alone():
        pid = daemon.stop()
        click.echo(f"down: process {pid} has ended" if pid else "down: it was not up")
        if not destroy:
            return
        _destroy_services(operator)
        removed, kept = remove_state(settings)
    click.echo(f"removed below {settings.state_dir}: {', '.join(removed) or 'nothing'}")
    if kept:
        click.echo(f"left there: {', '.join(kept)}")
    if settings.database.url:
        click.echo(
            "left: the tables in the database that [database] url names (`pileus db downgrade base --yes` drops them)"
        )


def _upgrade(operator: Operator) -> None:
    operator.require_database()
    schema.upgrade(operator.settings)
    operator.write(schema.ensure_cloud_row)


def _destroy_services(operator: Operator) -> None:
    """Have every service remove what it made, guests first; one that fails does not keep the others from it.

    Raises:
        Unavailable: at least one failed; nothing below the state folder was removed, so it can be tried again.
    """
    settings = operator.settings
    set_up_logging(settings)
    failed = []
    with ExitStack() as stack:
        for name in [n for n in ORDER if n in service_names()] + [n for n in service_names() if n not in ORDER]:
            try:
                (service,) = make_services([name], settings, stack)
                service.destroy()
            except Exception as error:
                if not isinstance(error, CloudError):
                    log.exception("not everything could be removed", service=name)
                failed.append(f"{name}: {error}")
            else:
                click.echo(f"removed what {name} had made")
    if failed:
        raise Unavailable(what="Removing everything", reason="; ".join(failed))


def _wait_for_hosts(operator: Operator, hosts: int) -> None:
    def problem() -> str:
        found = operator.read(lambda tx: tx.session.scalar(select(func.count()).where(Host.up))) or 0
        return "" if found >= hosts else f"{found} of {hosts} hosts have reported"

    if hosts and (left := wait_for(problem, UP_TIMEOUT_S)):
        log_file = Daemon(operator.settings.state_dir).log_file
        raise Unavailable(what="The cloud", reason=f"{left} after {UP_TIMEOUT_S:g} s (see {log_file})")
