"""`pileus db`: the database's tables."""

import click

from controller.cli.operator import Operator, output_option, pass_operator
from controller.cli.output import print_row
from controller.operations import schema


@click.group()
def db() -> None:
    """The database's tables."""


@db.command()
@pass_operator
def upgrade(operator: Operator) -> None:
    """Bring the tables up to this release."""
    schema.upgrade(operator.settings)
    click.echo(f"the database is at revision {schema.current(operator.settings)}")


@db.command()
@click.argument("revision")
@pass_operator
def downgrade(operator: Operator, revision: str) -> None:
    """Take the tables back to REVISION; `base` removes them all."""
    schema.downgrade(operator.settings, revision)
    click.echo(f"the database is at revision {schema.current(operator.settings) or 'base'}")


@db.command()
@output_option
@pass_operator
def current(operator: Operator) -> None:
    """Show the revision of the tables."""
    print_row(operator, {"revision": schema.current(operator.settings)})
