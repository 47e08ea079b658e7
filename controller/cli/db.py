"""`pileus db`: the database's tables."""

import click

from controller.cli.daemon import Daemon
from controller.cli.operator import Operator, output_option, pass_operator
from controller.cli.output import print_row
from controller.domain.errors import Conflict
from controller.operations.database import schema
from controller.operations.database.downgrade import losses, users
from controller.operations.services.receivers import GONE_AFTER_S


@click.group()
def db() -> None:
    """The database's tables."""


@db.command()
@pass_operator
def upgrade(operator: Operator) -> None:
    """Bring the tables up to this release."""
    operator.require_database()
    schema.upgrade(operator.settings)
    click.echo(f"the database is at revision {schema.current(operator.settings)}")


@db.command(context_settings={"ignore_unknown_options": True})
@click.argument("revision")
@click.option("--yes", is_flag=True, help="Do it, whatever is lost.")
@pass_operator
def downgrade(operator: Operator, revision: str, yes: bool) -> None:
    """Take the tables of a stopped cloud back to REVISION; `base` removes them all.

    Says what would be lost, and does nothing without --yes.
    """
    operator.require_database()
    if in_use := _users(operator):
        advice = "Stop all of it first: `pileus down`, or the units of every machine"
        advice += f". What was stopped just now may count for {GONE_AFTER_S} s more"
        raise Conflict(reason=f"the cloud runs: {'; '.join(in_use)}. {advice}")
    lost = losses(operator.settings, revision)
    for loss in lost:
        click.echo(f"lost: {loss}")
    if lost and not yes:
        raise Conflict(reason="nothing was done: back the database up, then give --yes as well")
    schema.downgrade(operator.settings, revision)
    click.echo(f"the database is at revision {schema.current(operator.settings) or 'base'}")


def _users(operator: Operator) -> list[str]:
    pid = Daemon(operator.settings.state_dir).pid()
    here = [f"`pileus up` here, as process {pid}"] if pid else []
    if schema.current(operator.settings) is None:
        return here
    # With the embedded bus only the process that is looked for above takes heartbeats.
    return here + operator.read(lambda tx: users(tx, by_heartbeats=not operator.settings.embedded_bus))


@db.command()
@output_option
@pass_operator
def current(operator: Operator) -> None:
    """Show the revision of the tables."""
    operator.require_database()
    print_row(operator, {"revision": schema.current(operator.settings)})
