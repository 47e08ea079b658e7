"""`pileus dead-letter`: messages that no handler could carry out."""

import click

from controller.cli.operator import Operator, output_option, pass_operator
from controller.cli.output import print_row, print_rows, row
from controller.operations import dead_letters

_FIELDS = ("id", "at", "queue", "reason", "replay_at", "body")
_NUMBER = click.IntRange(1, 2**63 - 1)


@click.group("dead-letter")
def dead_letter() -> None:
    """Messages that no handler could carry out."""


@dead_letter.command("list")
@output_option
@pass_operator
def list_(operator: Operator) -> None:
    """List them, the newest first."""
    print_rows(operator, [row(d, *_FIELDS) for d in operator.read(dead_letters.list_dead_letters)], _FIELDS[:5])


@dead_letter.command()
@click.argument("number", type=_NUMBER)
@output_option
@pass_operator
def show(operator: Operator, number: int) -> None:
    """Show one of them, with its content."""
    print_row(operator, row(operator.read(lambda tx: dead_letters.get_dead_letter(tx, number)), *_FIELDS))


@dead_letter.command()
@click.argument("numbers", type=_NUMBER, nargs=-1, required=True)
@pass_operator
def replay(operator: Operator, numbers: tuple[int, ...]) -> None:
    """Have the controller send them again."""
    operator.write(lambda tx: dead_letters.replay(tx, numbers))
    click.echo(f"{len(numbers)} will be sent again")


@dead_letter.command()
@click.argument("numbers", type=_NUMBER, nargs=-1, required=True)
@pass_operator
def discard(operator: Operator, numbers: tuple[int, ...]) -> None:
    """Throw them away."""
    operator.write(lambda tx: dead_letters.discard(tx, numbers))
    click.echo(f"{len(numbers)} are gone")
