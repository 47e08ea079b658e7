"""`pileus host`: the machines that carry the guests."""

import click

from controller.cli.join_tokens import token
from controller.cli.operator import Operator, output_option, pass_operator
from controller.cli.output import print_row, print_rows, row
from controller.db.models import Host, HostMode
from controller.operations import given_up_hosts, hosts

_FIELDS = (
    "id",
    "mode",
    "up",
    "hypervisor",
    "architecture",
    "zone",
    "labels",
    "disk_backends",
    "vcpus",
    "vcpus_limit",
    "vcpus_used",
    "memory_mib",
    "memory_limit_mib",
    "memory_used_mib",
    "guest_overhead_mib",
    "disk_gib",
    "disk_limit_gib",
    "disk_used_gib",
    "drift",
    "release",
    "speaks",
    "boot_id",
    "last_seen_at",
    "created_at",
)
_COLUMNS = (
    "id",
    "mode",
    "up",
    "hypervisor",
    "zone",
    "labels",
    "vcpus_used",
    "vcpus_limit",
    "memory_used_mib",
    "memory_limit_mib",
    "release",
    "last_seen_at",
    "drift",
)


@click.group()
def host() -> None:
    """The machines that carry the guests."""


host.add_command(token)


@host.command("list")
@output_option
@pass_operator
def list_(operator: Operator) -> None:
    """List all hosts with what is promised of them and what may be."""
    print_rows(operator, [row(h, *_FIELDS) for h in operator.read(hosts.list_hosts)], _COLUMNS)


@host.command()
@click.argument("name")
@output_option
@pass_operator
def show(operator: Operator, name: str) -> None:
    """Show a host: what it has, promises and has promised, what is odd about it, and its instances."""
    detail = operator.read(lambda tx: hosts.show_host(tx, name))
    found = detail.host
    document = {
        **row(found, *_FIELDS),
        "down_since": None if found.up else found.last_seen_at,
        "images": _values(found.images),
        "allowed_macs": None if found.allowed_macs is None else _values(found.allowed_macs),
        "pins": detail.pins,
        "mac_disagreements": [str(d) for d in detail.mac_disagreements],
        "instances": [f"{i.id} {i.state}" for i in detail.instances],
    }
    print_row(operator, document)


def _values(text: str | None) -> list[str]:
    return [v for v in (text or "").split(",") if v]


def _set_mode(operator: Operator, name: str, mode: HostMode) -> None:
    changed: Host = operator.write(lambda tx: hosts.set_mode(tx, name, mode))
    click.echo(f"{changed.id} is {changed.mode}")


@host.command()
@click.argument("name")
@pass_operator
def disable(operator: Operator, name: str) -> None:
    """Place no new instances on a host; those that it has stay."""
    _set_mode(operator, name, HostMode.DISABLED)


@host.command()
@click.argument("name")
@pass_operator
def enable(operator: Operator, name: str) -> None:
    """Place instances on a host again."""
    _set_mode(operator, name, HostMode.READY)


@host.command()
@click.argument("name")
@pass_operator
def drain(operator: Operator, name: str) -> None:
    """Mark a host as one that is to become empty."""
    _set_mode(operator, name, HostMode.DRAINING)


@host.command()
@click.argument("name")
@pass_operator
def accept(operator: Operator, name: str) -> None:
    """Take a host as it is now, whatever was registered of it: its drift is cleared."""
    changed: Host = operator.write(lambda tx: hosts.accept(tx, name))
    click.echo(f"{changed.id} is accepted as it is" + (f"; what is left: {changed.drift}" if changed.drift else ""))


@host.command()
@click.argument("name")
@click.option("--force", is_flag=True, help="Also one that is down for good: its instances are given up.")
@pass_operator
def remove(operator: Operator, name: str, force: bool) -> None:
    """Forget a host that carries nothing."""
    if force:
        count: int = operator.write(lambda tx: given_up_hosts.give_up(tx, name))
        click.echo(f"{name} is removed, {count} of its instances are given up")
    else:
        operator.write(lambda tx: hosts.remove_host(tx, name))
        click.echo(f"{name} is removed")
