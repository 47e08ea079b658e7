"""`pileus network`: the projects' networks."""

import click

from controller.cli.leases import export_leases, import_leases
from controller.cli.operator import Operator, output_option, pass_operator
from controller.cli.output import print_row, print_rows, row
from controller.domain.networks import NetworkKind
from controller.operations.accounts import projects
from controller.operations.cloud import Transaction
from controller.operations.networks import networks, quarantine

_FIELDS = ("id", "name", "kind", "project_id", "physical_network", "vlan", "cidr", "created_at")


@click.group()
def network() -> None:
    """The projects' networks."""


@network.command("list")
@output_option
@pass_operator
def list_(operator: Operator) -> None:
    """List all networks."""
    print_rows(operator, [row(n, *_FIELDS) for n in operator.read(networks.list_networks)], _FIELDS)


@network.command()
@click.argument("name")
@click.option(
    "--project", help="Project that it belongs to, by name or account number; without it every project may use it."
)
@click.option("--cidr", help="Address range; else one is cut out of [network] project_cidr_pool.")
@click.option("--vlan", type=click.IntRange(1, 4094), help="VLAN id; else the first one that is free.")
@click.option(
    "--pinned", is_flag=True, help="It has the leases that are imported, each pinned to hosts, and no others."
)
@output_option
@pass_operator
def create(
    operator: Operator, name: str, project: str | None, cidr: str | None, vlan: int | None, pinned: bool
) -> None:
    """Create a network.

    A project's instances are put into its network "default" unless another one is asked for.
    """
    kind = NetworkKind.PINNED if pinned else NetworkKind.POOLED
    made = operator.write(
        lambda tx: networks.create_network(
            tx, projects.get_project(tx, project).id if project else None, name, cidr, vlan, kind
        )
    )
    print_row(operator, row(made, *_FIELDS))


@network.command()
@click.argument("network_id", metavar="NETWORK")
@output_option
@pass_operator
def show(operator: Operator, network_id: str) -> None:
    """Show a network, by id or name: how many addresses are free, and which are kept because of removed hosts."""

    def describe(tx: Transaction) -> dict[str, object]:
        found = networks.find_network(tx, network_id)
        kept = quarantine.list_quarantined(tx, found.id)
        return {
            **row(found, *_FIELDS),
            "free": networks.free_addresses_of(tx, [found])[found.id],
            "quarantined": [f"{q.ip} {q.instance} on {q.host}" for q in kept],
        }

    print_row(operator, operator.read(describe))


@network.command()
@click.argument("network_id", metavar="NETWORK")
@click.argument("cidr")
@output_option
@pass_operator
def resize(operator: Operator, network_id: str, cidr: str) -> None:
    """Let a network, by id or name, grow to a larger range.

    The range begins where the present one does. Guests keep addresses and connections; they learn the new size with
    their next DHCP lease.
    """
    grown = operator.write(lambda tx: networks.resize_network(tx, networks.find_network(tx, network_id).id, cidr))
    print_row(operator, row(grown, *_FIELDS))


@network.command()
@click.argument("network_id", metavar="NETWORK")
@pass_operator
def delete(operator: Operator, network_id: str) -> None:
    """Delete a network, by id or name, that no instance uses, with its leases."""

    def remove(tx: Transaction) -> str:
        found = networks.find_network(tx, network_id)
        networks.delete_network(tx, found.id)
        return found.id

    click.echo(f"{operator.write(remove)} is deleted")


network.add_command(import_leases)
network.add_command(export_leases)
