"""`pileus instance`: every project's virtual machines."""

import click

from controller.cli.operator import Operator, output_option, pass_operator
from controller.cli.output import iso, print_json, print_row, print_rows, printable, row
from controller.domain.states import State
from controller.operations.accounts import projects
from controller.operations.cloud import Transaction
from controller.operations.instances import actions, history, views
from controller.operations.instances.history import InstanceHistory
from controller.operations.instances.views import InstanceView

_FIELDS = (
    "id",
    "reservation_id",
    "launch_index",
    "project_id",
    "state",
    "state_since",
    "reason_code",
    "reason",
    "generation",
    "image_id",
    "instance_type",
    "vcpus",
    "memory_mib",
    "disk_gib",
    "key_name",
    "network_id",
    "host_id",
    "created_at",
    "launched_at",
    "deleted_at",
)
_COLUMNS = ("id", "project_id", "state", "ip", "instance_type", "host_id", "created_at", "reason")


@click.group()
def instance() -> None:
    """Every project's virtual machines."""


@instance.command("list")
@click.option("--project", help="Only those of this project, by name or account number.")
@click.option("--state", type=click.Choice([s.value for s in State], case_sensitive=False), help="Only those in it.")
@output_option
@pass_operator
def list_(operator: Operator, project: str | None, state: str | None) -> None:
    """List instances, oldest first."""

    def found(tx: Transaction) -> list[InstanceView]:
        return views.list_instances(tx, projects.get_project(tx, project).id if project else None)

    rows = [_row(view) for view in operator.read(found) if state in (None, view.state)]
    print_rows(operator, rows, _COLUMNS)


@instance.command()
@click.argument("instance_id")
@output_option
@pass_operator
def show(operator: Operator, instance_id: str) -> None:
    """Show an instance."""
    print_row(operator, _row(operator.read(lambda tx: views.get_instance(tx, None, instance_id))))


@instance.command()
@click.argument("instance_id")
@output_option
@pass_operator
def explain(operator: Operator, instance_id: str) -> None:
    """Tell the whole history of an instance: every event with its time, every refusal."""
    found = operator.read(lambda tx: history.explain(tx, instance_id))
    steps = [row(s, "at", "event", "state", "detail") for s in found.events]
    if operator.output == "json":
        print_json({**row(found.instance, *_FIELDS), "ip": found.instance.ip, "steps": steps})
        return
    _print_history(found)


@instance.command()
@click.argument("instance_ids", nargs=-1, required=True)
@pass_operator
def terminate(operator: Operator, instance_ids: tuple[str, ...]) -> None:
    """Delete instances of whatever project."""
    for changed, before in operator.write(lambda tx: actions.terminate(tx, None, instance_ids, by="the operator")):
        click.echo(f"{changed.id} was {before}, is {changed.state}")


def _row(view: InstanceView) -> dict[str, object]:
    return {**row(view, *_FIELDS), "ip": view.ip, "mac": view.mac}


def _print_history(found: InstanceHistory) -> None:
    about = found.instance
    click.echo(f"{about.id}  {about.state} since {iso(about.state_since)}")
    beside = f" (and {found.overhead_mib} MiB for the hypervisor)" if found.overhead_mib else ""
    size = f"{about.vcpus} vCPU, {about.memory_mib} MiB{beside}, {about.disk_gib} GiB"
    click.echo(f"{about.instance_type}: {size}; image {about.image_id}")
    click.echo(f"host {about.host_id or '-'}, address {found.instance.ip or '-'}, project {about.project_id}")
    if about.reason:
        click.echo(f"reason: {printable(about.reason)} ({about.reason_code})")
    click.echo()
    start = found.events[0].at if found.events else about.created_at
    for step in found.events:
        after = f"+{(step.at - start).total_seconds():.3f} s"
        click.echo(f"{iso(step.at)}  {after:>12}  {step.event:<11} {step.state:<10} {printable(step.detail)}".rstrip())
