"""`pileus lease`: who holds which address. `pileus network import-leases` and `export-leases`: what a pinned network
may give out, and where."""

import sys
from collections.abc import Sequence
from ipaddress import IPv4Address
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import click

from controller.cli.operator import Operator, output_option, pass_operator
from controller.cli.output import Row, print_json, print_rows, printable, row
from controller.domain.errors import LeasesRefused
from controller.domain.lease_file import MAX_BYTES, LeaseFormat, LeaseRow, read_leases, write_leases
from controller.operations.cloud import Transaction
from controller.operations.networks import pinned_leases
from controller.operations.networks.lease_checks import ExistingLease
from controller.operations.networks.lease_views import LeaseState, LeaseView, list_leases
from controller.operations.networks.networks import find_network
from controller.operations.networks.pinned_leases import LeaseChanges

_FIELDS = (
    "ip",
    "mac",
    "name",
    "network_id",
    "network",
    "state",
    "instance_id",
    "host_id",
    "project_id",
    "released_at",
    "free_after",
)
_COLUMNS = ("ip", "mac", "network", "state", "instance_id", "host_id", "project_id", "free_after")
_SHOWN = 100
_format_option = click.option(
    "--format", "form", type=click.Choice([f.value for f in LeaseFormat]), help="Form of the file; else by its name."
)


@click.group()
def lease() -> None:
    """The addresses that instances hold, held, or may hold."""


@lease.command("list")
@click.option("--network", help="Only those of this network, by id or name.")
@click.option("--ip", help="Only this address.")
@click.option(
    "--state", type=click.Choice([s.value for s in LeaseState], case_sensitive=False), help="Only those in it."
)
@output_option
@pass_operator
def list_(operator: Operator, network: str | None, ip: str | None, state: str | None) -> None:
    """List who holds which address, by network.

    RESTING: given back, kept until DHCP has forgotten its last holder. QUARANTINE: the guest of a removed host may
    still use it. An address that was never given out has no lease.
    """
    wanted = LeaseState(state.upper()) if state else None

    def found(tx: Transaction) -> list[LeaseView]:
        network_id = find_network(tx, network).id if network else ""
        return list_leases(tx, network_id=network_id, ip=_address(ip) if ip else "", state=wanted)

    print_rows(operator, [row(v, *_FIELDS) for v in operator.read(found)], _COLUMNS)


def _address(ip: str) -> str:
    try:
        return str(IPv4Address(ip))
    except ValueError as error:
        raise click.BadParameter(f"{ip!r} is no IPv4 address", param_hint="--ip") from error


@click.command("import-leases")
@click.argument("network")
@click.argument("file", type=click.File("rb"))
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--prune", is_flag=True, help="Remove the leases that the file does not name.")
@_format_option
@output_option
@pass_operator
def import_leases(
    operator: Operator, network: str, file: BinaryIO, dry_run: bool, prune: bool, form: str | None
) -> None:
    """Take the leases of a pinned network from a file, all or none.

    FILE is CSV with the header ip,mac,name,hosts, the hosts separated by spaces, or a JSON list of such objects;
    - is standard input. The name may be left empty. Leases that the file does not name stay. One that is in use
    keeps its address, its MAC and the host of its instance.
    """
    leases = read_leases(file.read(MAX_BYTES + 1), _form(form, file.name))
    operation = pinned_leases.preview_import if dry_run else pinned_leases.import_leases

    def run(tx: Transaction) -> LeaseChanges:
        return operation(tx, find_network(tx, network).id, leases, prune=prune)

    try:
        changes = operator.read(run) if dry_run else operator.write(run)
    except LeasesRefused as error:
        _print_bad(operator, error)
        sys.exit(1)
    _print_changes(operator, changes, dry_run)


@click.command("export-leases")
@click.argument("network")
@click.option("--output", "file", type=click.Path(dir_okay=False, path_type=Path), help="File; else standard output.")
@_format_option
@pass_operator
def export_leases(operator: Operator, network: str, file: Path | None, form: str | None) -> None:
    """Write the leases of a pinned network as import-leases takes them; CSV if nothing else is said."""
    wanted = _form(form, str(file) if file and file.suffix else "leases.csv")
    rows = operator.read(lambda tx: pinned_leases.export_leases(tx, find_network(tx, network).id))
    text = write_leases(rows, wanted)
    if file is None:
        click.echo(text, nl=False)
    else:
        file.write_text(text)
        click.echo(f"{len(rows)} leases are in {file}", err=True)


def _form(form: str | None, name: str) -> LeaseFormat:
    wanted = form or Path(name).suffix.removeprefix(".").lower()
    if wanted not in list(LeaseFormat):
        raise click.UsageError(f"{name}: say with --format whether it is csv or json")
    return LeaseFormat(wanted)


def _print_bad(operator: Operator, error: LeasesRefused) -> None:
    rows, count = error.fields["rows"], error.fields["count"]
    if operator.output == "json":
        print_json({"imported": False, "bad": count, "rows": [{"line": r.line, "reason": r.reason} for r in rows]})
        return
    for bad in rows:
        click.echo(printable(str(bad)), err=True)
    if count > len(rows):
        click.echo(f"and {count - len(rows)} more", err=True)
    click.echo(f"error: nothing was imported, for {count} rows are bad", err=True)


def _print_changes(operator: Operator, changes: LeaseChanges, dry_run: bool) -> None:
    counts = {
        "added": len(changes.added),
        "changed": len(changes.changed),
        "unchanged": changes.unchanged,
        "removed": len(changes.removed),
    }
    if operator.output == "json":
        listed = {"changes": list(_each(changes))} if dry_run else {}
        print_json({"imported": not dry_run, **counts, **listed})
        return
    if dry_run:
        for change in islice(_each(changes), _SHOWN):
            click.echo(f"{change['change']:<7} {change['ip']:<15} {printable(change['what'])}")
        total = counts["added"] + counts["changed"] + counts["removed"]
        if total > _SHOWN:
            click.echo(f"and {total - _SHOWN} more")
    said = ", ".join(f"{n} {what}" for what, n in counts.items())
    click.echo(f"would be: {said}" if dry_run else said)


def _each(changes: LeaseChanges) -> Sequence[Row]:
    return [
        *({"change": "add", "ip": r.ip, "what": " ".join((r.mac, r.name or "-", *r.hosts))} for r in changes.added),
        *({"change": "change", "ip": row.ip, "what": _difference(old, row)} for old, row in changes.changed),
        *({"change": "remove", "ip": x.ip, "what": x.mac} for x in changes.removed),
    ]


def _difference(old: ExistingLease, new: LeaseRow) -> str:
    parts = []
    if old.mac != new.mac:
        parts.append(f"MAC {old.mac} -> {new.mac}")
    if old.name != new.name:
        parts.append(f"name {old.name or '-'} -> {new.name or '-'}")
    parts += [f"+{h}" for h in new.hosts if h not in old.hosts]
    parts += [f"-{h}" for h in sorted(old.hosts.difference(new.hosts))]
    return ", ".join(parts)
