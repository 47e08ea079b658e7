"""`pileus host`: the machines that carry the guests."""

from typing import Any

import click

from controller.cli.join_tokens import token
from controller.cli.operator import Operator, output_option, pass_operator
from controller.cli.output import counted, print_row, print_rows, row
from controller.db.models import Host
from controller.domain.errors import HostNotFound
from controller.domain.host_facts import FACTS, columns_of, list_columns_of
from controller.domain.hosts import HostMode
from controller.operations.cloud import Transaction
from controller.operations.hosts import force_removal, hosts, stray_guests
from controller.operations.networks import quarantine

_FIELDS = (
    "id",
    "mode",
    "up",
    *(column for fact in FACTS if fact.shown for column in columns_of(fact)),
    "drift",
    "release",
    "speaks",
    "remarks",
    "epoch",
    "boot_id",
    "last_seen_at",
    "created_at",
)
_COLUMNS = (
    "id",
    "mode",
    "up",
    *(column for fact in FACTS if fact.listed for column in list_columns_of(fact)),
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
    """Show a host: what it has, promises and has promised, what is odd about it, and its instances.

    Of one that was removed: what is remembered of it, and what is heard of its agent.
    """
    try:
        detail = operator.read(lambda tx: hosts.show_host(tx, name))
    except HostNotFound:
        print_row(operator, operator.read(lambda tx: _removed(tx, name)))
        return
    found = detail.host
    document = {
        **row(found, *_FIELDS),
        "down_since": None if found.up else found.last_seen_at,
        "images": _values(found.images),
        "allowed_macs": None if found.allowed_macs is None else _values(found.allowed_macs),
        "pins": detail.pins,
        "mac_disagreements": [str(d) for d in detail.mac_disagreements],
        "instances": [f"{i.id} {i.state}" for i in detail.instances],
        **operator.read(lambda tx: _not_its_own(tx, name)),
    }
    print_row(operator, document)


def _removed(tx: Transaction, name: str) -> dict[str, Any]:
    found = quarantine.removed_host(tx, name)
    return {
        **row(found, "id", "epoch", "removed_at", "fenced_at", "last_seen_at", "remarks"),
        **_not_its_own(tx, name),
    }


def _not_its_own(tx: Transaction, name: str) -> dict[str, list[str]]:
    """Guests that it shows and that belong elsewhere, addresses that are kept because of it."""
    return {
        "strays": [f"{s.instance_id} {s.power}: {s.reason}" for s in stray_guests.list_strays(tx, name)],
        "quarantined": [f"{q.ip} {q.network} {q.instance}" for q in quarantine.list_quarantined(tx, host_id=name)],
    }


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
@click.option("--force", is_flag=True, help="Also a host that is down, with its instances: they end in ERROR.")
@click.option("--fenced", is_flag=True, help="With --force: the host is dead, none of its guests can still run.")
@pass_operator
def remove(operator: Operator, name: str, force: bool, fenced: bool) -> None:
    """Forget a host that carries nothing.

    With --force, the addresses of its guests are kept in quarantine, for the guests may still run, until the host is
    heard of without them or is said to be dead: with --fenced now, with `pileus host fence` later.
    """
    if fenced and not force:
        raise click.UsageError("--fenced goes with --force")
    if force:
        count: int = operator.write(lambda tx: force_removal.force_remove(tx, name, fenced=fenced))
        click.echo(f"{name} is removed, and {counted(count, 'instance')} with it")
        kept = operator.read(lambda tx: quarantine.list_quarantined(tx, host_id=name))
        if kept:
            addresses = counted(len(kept), "address is", "addresses are")
            click.echo(f"{addresses} in quarantine: once it is surely dead, `pileus host fence {name}`")
    else:
        operator.write(lambda tx: hosts.remove_host(tx, name))
        click.echo(f"{name} is removed")


@host.command()
@click.argument("name")
@pass_operator
def fence(operator: Operator, name: str) -> None:
    """Say that a removed host is dead: the addresses of its guests are free again.

    Only when none of its guests can still run: its power is off, or it is cut off from the trunk for good.
    """
    count: int = operator.write(lambda tx: quarantine.fence(tx, name))
    click.echo(f"{name} is dead, {counted(count, 'address leaves', 'addresses leave')} quarantine")
