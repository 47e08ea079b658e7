"""Networks as doors show them to a project."""

from collections.abc import Sequence
from dataclasses import dataclass

from controller.operations.cloud import Transaction
from controller.operations.networks.networks import DEFAULT_NAME, free_addresses_of, usable_networks


@dataclass(frozen=True)
class NetworkView:
    """A network that a project may launch in; ``is_default``: it does so without naming one."""

    id: str
    name: str
    cidr: str
    is_default: bool
    free_addresses: int


def list_usable_networks(tx: Transaction, project_id: str) -> Sequence[NetworkView]:
    """The networks that a project may launch in, the oldest first. Two statements."""
    networks = usable_networks(tx, project_id)
    free = free_addresses_of(tx, networks)
    return [
        NetworkView(n.id, n.name, n.cidr, n.project_id == project_id and n.name == DEFAULT_NAME, free[n.id])
        for n in networks
    ]


def list_usable_ranges(tx: Transaction, project_id: str) -> Sequence[str]:
    """The CIDRs of the networks that a project may launch in, the oldest first."""
    return [n.cidr for n in usable_networks(tx, project_id)]
