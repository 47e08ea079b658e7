"""`pileus service`: the services that run, and the oldest release that may."""

import click

from controller.cli.operator import Operator, output_option, pass_operator
from controller.cli.output import Row, print_rows, row
from controller.operations.cloud import Transaction
from controller.operations.services import services

_FIELDS = ("name", "machine", "pid", "release", "speaks", "started_at", "seen_at", "unread")
_COLUMNS = ("name", "machine", "pid", "running", "release", "speaks", "started_at", "seen_at", "unread")


@click.group()
def service() -> None:
    """The services that run, and their releases."""


@service.command("list")
@output_option
@pass_operator
def list_(operator: Operator) -> None:
    """List the services; one that was killed is shown as not running for a day. Agents: `pileus host list`."""
    print_rows(operator, operator.read(_rows), _COLUMNS)


@service.command()
@click.argument("release")
@pass_operator
def require(operator: Operator, release: str) -> None:
    """Let no service older than RELEASE run any more: the last step of an upgrade.

    From then on everything that the newer release's messages can say is used between services and agents.
    """
    operator.write(lambda tx: services.require(tx, release))
    click.echo(f"no service older than {release} may run in this cloud")


def _rows(tx: Transaction) -> list[Row]:
    return [{**row(s, *_FIELDS), "running": services.is_running(tx, s)} for s in services.list_services(tx)]
