"""`pileus project`: accounts and their quotas."""

import click

from controller.cli.operator import Operator, output_option, pass_operator
from controller.cli.output import print_row, print_rows, row
from controller.operations.accounts import projects

_FIELDS = (
    "id",
    "name",
    "enabled",
    "used_instances",
    "quota_instances",
    "used_vcpus",
    "quota_vcpus",
    "used_memory_mib",
    "quota_memory_mib",
    "created_at",
)


@click.group()
def project() -> None:
    """Accounts and their quotas."""


@project.command("list")
@output_option
@pass_operator
def list_(operator: Operator) -> None:
    """List all projects with what they use and may use."""
    print_rows(operator, [row(p, *_FIELDS) for p in operator.read(projects.list_projects)], _FIELDS)


@project.command()
@click.argument("name")
@output_option
@pass_operator
def create(operator: Operator, name: str) -> None:
    """Create a project with the quotas of the configuration."""
    print_row(operator, row(operator.write(lambda tx: projects.create_project(tx, name)), *_FIELDS))


@project.command()
@click.argument("name")
@click.option("--instances", type=click.IntRange(0))
@click.option("--vcpus", type=click.IntRange(0))
@click.option("--memory-mib", type=click.IntRange(0))
@output_option
@pass_operator
def quota(operator: Operator, name: str, instances: int | None, vcpus: int | None, memory_mib: int | None) -> None:
    """Show a project's quotas, changed as the options say."""
    changed = operator.write(
        lambda tx: projects.set_quota(tx, name, instances=instances, vcpus=vcpus, memory_mib=memory_mib)
    )
    print_row(operator, row(changed, *_FIELDS))
