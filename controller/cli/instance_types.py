"""`pileus instance-type`: the sizes that instances come in."""

import click

from controller.cli.operator import Operator, output_option, pass_operator
from controller.cli.output import print_row, print_rows, row
from controller.operations.instances import instance_types

_FIELDS = ("name", "vcpus", "memory_mib", "disk_gib", "required_labels", "enabled")


@click.group("instance-type")
def instance_type() -> None:
    """The sizes that instances come in."""


@instance_type.command("list")
@output_option
@pass_operator
def list_(operator: Operator) -> None:
    """List the types, the smallest first."""
    print_rows(operator, [row(t, *_FIELDS) for t in operator.read(instance_types.list_types)], _FIELDS)


@instance_type.command()
@click.argument("name")
@click.option("--vcpus", type=click.IntRange(1), required=True)
@click.option("--memory-mib", type=click.IntRange(1), required=True)
@click.option("--disk-gib", type=click.IntRange(1), required=True)
@click.option("--label", "labels", multiple=True, help="A label that its hosts must have; may be given again.")
@output_option
@pass_operator
def add(operator: Operator, name: str, vcpus: int, memory_mib: int, disk_gib: int, labels: tuple[str, ...]) -> None:
    """Add a type."""
    made = operator.write(lambda tx: instance_types.add_type(tx, name, vcpus, memory_mib, disk_gib, labels))
    print_row(operator, row(made, *_FIELDS))
