"""Promises 5 and 9 on the network node: what DHCP serves and the firewall holds is what the rows say."""

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select

from controller.db.models import Instance, Lease, Network
from controller.domain.messages import SegmentObservation
from controller.domain.names import lease_hostname
from controller.domain.states import SERVED
from controller.operations.audit.observed_state import EvidenceCheck, ObservedState
from controller.operations.audit.violation import GRACE_S, Remedy, Repair, Violation
from controller.operations.cloud import Transaction
from controller.operations.networks.leases import FIRST_OFFSET, end_offset

_REWIRE = Remedy(Repair.REWIRE)
_ADVICE = "the network service's next sweep or --repair puts it right; its log says what stands in the way"
# So many are named in one line; how many there are is said in any case.
_NAMED = 5


@dataclass(frozen=True)
class _Lease:
    ip: str
    mac: str
    hostname: str
    held: bool
    wired: bool  # its guest was made once, so its network had been made before
    settled: bool  # nothing about it has changed for a while

    @property
    def served(self) -> str:
        return f"{self.mac},{self.ip},{self.hostname}"


def segments(tx: Transaction, observed: ObservedState) -> list[Violation]:
    """Each network has its bridge and one dnsmasq that serves its leases; nothing else is served."""
    if observed.network is None or not observed.network.host_side:
        return []
    settled = tx.now - timedelta(seconds=GRACE_S)
    networks = {
        n: (cidr, made) for n, cidr, made in tx.session.execute(select(Network.id, Network.cidr, Network.created_at))
    }
    leases = _leases(tx, settled)
    there = {s.network_id: s for s in observed.network.segments}
    found: list[Violation] = []
    for network_id in sorted(there.keys() - networks.keys()):
        what = "the network node serves DHCP for it, and it has no row"
        found.append(Violation(5, what, network_id, _ADVICE, _REWIRE, "stray"))
    for network_id, (cidr, made_at) in sorted(networks.items()):
        segment = there.get(network_id)
        if segment is not None:
            found += _segment(segment, cidr, leases.get(network_id, []))
        elif made_at < settled:
            found.append(Violation(9, "the network node has nothing of it", network_id, _ADVICE, _REWIRE, "nothing"))
    return found


def _segment(seen: SegmentObservation, cidr: str, leases: Collection[_Lease]) -> Iterator[Violation]:
    def violation(what: str, proof: str, promise: int = 9) -> Violation:
        return Violation(promise, what, seen.network_id, _ADVICE, _REWIRE, proof)

    if not seen.bridge:
        yield violation("its bridge is not there, not up or without the gateway's address", "bridge")
    if seen.servers != 1:
        yield violation(f"{seen.servers or 'no'} dnsmasq processes serve it, it wants one", "servers")
    wanted = end_offset(cidr) - FIRST_OFFSET
    if seen.lease_max != wanted:
        yield violation(
            f"its dhcp-lease-max is {seen.lease_max}, {cidr} has {wanted} addresses for guests", "lease max"
        )
    if seen.wrong_options:
        yield violation(f"its dnsmasq is not configured as it should be: {_some(seen.wrong_options)}", "options")
    served = set(seen.served)
    missing = [f"{lease.ip} ({lease.mac})" for lease in leases if lease.wired and lease.served not in served]
    if missing:
        yield violation(f"{len(missing)} of its leases are not served as they are: {_some(missing)}", "not served")
    fine = {lease.served for lease in leases if lease.held or not lease.settled}
    strange = [line for line in seen.served if line not in fine]
    if strange:
        yield violation(f"DHCP serves what has no row: {_some(strange)}", "served", 5)
    given = {f"{lease.mac},{lease.ip}" for lease in leases}
    wrong = [line for line in seen.given if line not in given]
    if wrong:
        # Its lease runs out by itself; who has it is to ask again.
        what = f"dnsmasq has given addresses as no row has them: {_some(wrong)}"
        yield Violation(
            9, what, seen.network_id, "restart those guests' DHCP clients, or wait for the lease's end", None, "given"
        )


def firewall(_tx: Transaction, observed: ObservedState) -> list[Violation]:
    """The cloud's nftables table holds what the networks' rows make of it, and nothing else."""
    if observed.network is None or not observed.network.firewall:
        return []
    what = f"its table is not as it should be: {_some(observed.network.firewall)}"
    return [Violation(5, what, "firewall of the network node", _ADVICE, _REWIRE, "firewall")]


def _leases(tx: Transaction, settled: datetime) -> dict[str, list[_Lease]]:
    rows = tx.session.execute(
        select(
            Lease.network_id, Lease.ip, Lease.mac, Lease.dns_name, Lease.instance_id, Lease.released_at,
            Instance.state, Instance.state_since,
        ).outerjoin(Instance, Instance.id == Lease.instance_id)
    )  # fmt: skip
    found: dict[str, list[_Lease]] = defaultdict(list)
    for network_id, ip, mac, dns_name, owner, released_at, state, since in rows:
        found[network_id].append(
            _Lease(
                ip,
                mac,
                lease_hostname(dns_name, ip),
                held=owner is not None,
                wired=state in SERVED,
                settled=(released_at or since or settled) <= settled,
            )
        )
    return found


def _some(lines: Collection[str]) -> str:
    named = ", ".join(list(lines)[:_NAMED])
    return named if len(lines) <= _NAMED else f"{named} and {len(lines) - _NAMED} more"


CHECKS: tuple[EvidenceCheck, ...] = (segments, firewall)
