"""Promises 4 and 9: VLANs and address ranges of networks are their own."""

import netaddr
from sqlalchemy import func, select

from controller.db.models import Network
from controller.domain.networks import NetworkKind
from controller.operations.audit.violation import Violation
from controller.operations.cloud import Transaction
from controller.operations.networks.leases import FIRST_OFFSET, end_offset


def vlans(tx: Transaction) -> list[Violation]:
    """A VLAN id is one that exists, and of one network."""
    bad = tx.session.execute(select(Network.id, Network.vlan).where(~Network.vlan.between(1, 4094)))
    found = [Violation(4, f"VLAN {vlan} is none: they go from 1 to 4094", n, "delete the network") for n, vlan in bad]
    doubled = tx.session.execute(
        select(Network.physical_network, Network.vlan, func.count(), func.min(Network.id))
        .group_by(Network.physical_network, Network.vlan)
        .having(func.count() > 1)
    )
    advice = "their guests share one wire: empty and delete all but one"
    return found + [
        Violation(4, f"{count} networks have VLAN {vlan} on {physical}", network, advice)
        for physical, vlan, count, network in doubled
    ]


def ranges(tx: Transaction) -> list[Violation]:
    """Ranges can be read and do not overlap; the next new address of a pooled one is in it."""
    found: list[Violation] = []
    spans: list[tuple[int, int, str, str]] = []
    for network_id, cidr, kind, offset in tx.session.execute(
        select(Network.id, Network.cidr, Network.kind, Network.next_offset)
    ):
        try:
            span = netaddr.IPNetwork(cidr)
        except (netaddr.AddrFormatError, ValueError):
            found.append(Violation(4, f"its range {cidr!r} is none", network_id, "delete the network"))
            continue
        spans.append((span.first, span.last, network_id, cidr))
        if kind == NetworkKind.POOLED and not FIRST_OFFSET <= offset <= end_offset(cidr):
            what = f"its next new address is number {offset}, of {FIRST_OFFSET} to {end_offset(cidr)} in {cidr}"
            advice = "set next_offset behind the last address that has a lease row"
            found.append(Violation(9, what, network_id, advice))
    return found + _overlaps(sorted(spans))


def _overlaps(spans: list[tuple[int, int, str, str]]) -> list[Violation]:
    """Sorted by the first address: whoever begins before the widest one so far has ended overlaps it."""
    found = []
    widest: tuple[int, int, str, str] | None = None
    for span in spans:
        first, last, network_id, cidr = span
        if widest is not None and first <= widest[1]:
            what = f"its range {cidr} overlaps {widest[3]} of {widest[2]}"
            found.append(Violation(4, what, network_id, "empty and delete one of the two"))
        if widest is None or last > widest[1]:
            widest = span
    return found


CHECKS = (vlans, ranges)
