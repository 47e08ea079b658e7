"""What doors show of all hosts together."""

from collections.abc import Collection

from sqlalchemy import func, select

from controller.db.models import Host
from controller.domain.checks import check_all_found
from controller.domain.errors import ZoneNotFound
from controller.operations.cloud import Transaction


def zones(tx: Transaction, names: Collection[str] = ()) -> dict[str, bool]:
    """Every zone that a host is in, or would be in, and whether a host of it is up; by name. With names only those.

    Raises:
        ZoneNotFound: no host is in one of them.
    """
    found = {tx.settings.api.zone: False}
    for zone, up in tx.session.execute(select(Host.zone, Host.up).distinct()):
        found[zone] = found.get(zone, False) or up
    check_all_found(names, found, ZoneNotFound)
    return {name: up for name, up in sorted(found.items()) if not names or name in names}


def architectures(tx: Transaction) -> list[str]:
    """The architectures of the hosts."""
    return list(tx.session.scalars(select(Host.architecture).distinct().order_by(Host.architecture)))


def count_by_up(tx: Transaction) -> dict[bool, int]:
    """How many hosts are up, and how many down; what there is none of is left out."""
    counted = tx.session.execute(select(Host.up, func.count()).group_by(Host.up))
    return {bool(row[0]): row[1] for row in counted}
