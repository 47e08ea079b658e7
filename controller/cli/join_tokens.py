"""`pileus host token`: what lets new hosts join."""

import re
from datetime import timedelta

import click

from controller.cli.operator import Operator, output_option, pass_operator
from controller.cli.output import print_row, print_rows, row
from controller.operations.hosts import join

_FIELDS = ("id", "name_pattern", "uses_left", "expires_at", "created_at")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def _duration(_context: click.Context, _parameter: click.Parameter, value: str) -> timedelta:
    """A length of time, as ``30m``, ``24h`` or ``7d``."""
    found = re.fullmatch(r"([0-9]{1,6})([smhd])", value, re.ASCII)
    if found is None:
        raise click.BadParameter(f"{value!r} is no length of time such as 30m, 24h or 7d")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


@click.group()
def token() -> None:
    """What lets new hosts join."""


@token.command()
@click.option("--name-pattern", default="*", help="Which names hosts may join by, as 'rack1-*'.")
@click.option("--uses", type=click.IntRange(1), default=1, show_default=True, help="How many hosts may join.")
@click.option("--expires", callback=_duration, default="24h", show_default=True, help="How long it is valid.")
@output_option
@pass_operator
def create(operator: Operator, name_pattern: str, uses: int, expires: timedelta) -> None:
    """Make a token; it is shown this once, only its hash is kept."""
    made, secret = operator.write(lambda tx: join.create_token(tx, name_pattern, uses, expires))
    if operator.settings.embedded_bus:
        click.echo("warning: no host can join while [bus] url is the memory of one process", err=True)
    print_row(operator, {**row(made, *_FIELDS), "token": secret})


@token.command("list")
@output_option
@pass_operator
def list_(operator: Operator) -> None:
    """List the tokens, the newest first."""
    print_rows(operator, [row(t, *_FIELDS) for t in operator.read(join.list_tokens)], _FIELDS)


@token.command()
@click.argument("id_", metavar="ID")
@pass_operator
def revoke(operator: Operator, id_: str) -> None:
    """End a token: no host joins with it any more."""
    operator.write(lambda tx: join.revoke_token(tx, id_))
    click.echo(f"{id_} is revoked")
