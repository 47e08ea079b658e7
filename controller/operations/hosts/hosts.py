"""Hosts: their registration, their modes, their removal."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import func, select

from controller.db.models import Claim, Host, Instance, LeasePin
from controller.domain.checks import LARGEST
from controller.domain.drift import accepted
from controller.domain.errors import HostInUse
from controller.domain.host_facts import CAPACITIES, FACTS, Capacity
from controller.domain.hosts import HostMode
from controller.domain.messages import HostReported
from controller.operations.cloud import Transaction
from controller.operations.hosts.fencing import missing_host, new_epoch, remember_removed
from controller.operations.hosts.macs import MacDisagreement, mac_disagreements

__all__ = [
    "HostDetail",
    "MacDisagreement",
    "accept",
    "get_host",
    "list_hosts",
    "mac_disagreements",
    "register",
    "remove_host",
    "set_facts",
    "set_mode",
    "show_host",
]

log = structlog.get_logger(__name__)

_END_INSTANCES = "terminate them, or --force where the host is down for good"
_IMPORT_LEASES = "import the leases with other hosts (`pileus network import-leases`)"


@dataclass(frozen=True)
class HostDetail:
    """A host, what it carries, how many leases are pinned to it, and where its MAC addresses differ from them."""

    host: Host
    instances: Sequence[Instance]
    pins: int
    mac_disagreements: Sequence[MacDisagreement]


def list_hosts(tx: Transaction) -> Sequence[Host]:
    """All hosts, by name."""
    return tx.session.scalars(select(Host).order_by(Host.id)).all()


def get_host(tx: Transaction, host_id: str) -> Host:
    """One host. Raises HostNotFound."""
    host = tx.session.get(Host, host_id)
    if host is None:
        raise missing_host(tx, host_id)
    return host


def show_host(tx: Transaction, host_id: str) -> HostDetail:
    """A host with what belongs to it. Raises HostNotFound."""
    host = get_host(tx, host_id)
    query = select(Instance).where(Instance.host_id == host_id).order_by(Instance.created_at, Instance.id)
    instances = tx.session.scalars(query).all()
    return HostDetail(host, instances, _pins(tx, host_id), mac_disagreements(tx, host_id))


def set_mode(tx: Transaction, host_id: str, mode: HostMode) -> Host:
    """READY takes new instances; DISABLED and DRAINING take none. Raises HostNotFound."""
    host = get_host(tx, host_id)
    host.mode = mode
    return host


def accept(tx: Transaction, host_id: str) -> Host:
    """Register the host as it is now: its drift is cleared, but for notes of what is wrong with it.

    Raises:
        HostNotFound
    """
    host = tx.session.get(Host, host_id, with_for_update=True)
    if host is None:
        raise missing_host(tx, host_id)
    host.drift = accepted(host.drift)
    return host


def remove_host(tx: Transaction, host_id: str) -> None:
    """Remove a host that has no claims and no pinned leases. If its agent still runs and registration is open, its next
    heartbeat registers it again.

    Raises:
        HostNotFound, InUse
    """
    host = tx.session.get(Host, host_id, with_for_update=True)
    if host is None:
        raise missing_host(tx, host_id)
    claims = tx.session.scalar(select(func.count()).select_from(Claim).where(Claim.host_id == host_id))
    pins = _pins(tx, host_id)
    if claims or pins:
        users = [f"{n} {what}{'s' * (n > 1)}" for n, what in ((claims, "instance"), (pins, "pinned lease")) if n]
        advice = [advice for n, advice in ((claims, _END_INSTANCES), (pins, _IMPORT_LEASES)) if n]
        raise HostInUse(kind="host", id=host_id, user=" and ".join(users), advice="; ".join(advice))
    remember_removed(tx, host)
    tx.session.delete(host)


def register(tx: Transaction, facts: HostReported) -> Host:
    """A new host, up when its first heartbeat says so."""
    host = Host(
        id=facts.host,
        mode=HostMode.READY,
        created_at=tx.now,
        drift="",
        up=True,
        epoch=new_epoch(tx, facts.host, facts.epoch),
        **{capacity.used: 0 for capacity in CAPACITIES},
    )
    set_facts(tx, host, facts)
    host.last_seen_at, host.heartbeat_sequence = tx.now, facts.sequence
    tx.session.add(host)
    log.info("host registered", host=facts.host, vcpus=facts.vcpus, memory_mib=facts.memory_mib)
    return host


def set_facts(tx: Transaction, host: Host, facts: HostReported) -> None:
    """Write the host's facts, and what may be claimed of it, to its row."""
    conf = tx.settings.scheduler
    for fact in FACTS:
        value = getattr(facts, fact.name)
        if isinstance(fact, Capacity):
            value = _steady(fact, getattr(host, fact.name), value)
            setattr(host, fact.limit, min(int(value * getattr(conf, fact.ratio)), LARGEST))
        elif isinstance(value, tuple):
            value = _csv(value)
        elif fact.name == "zone":
            value = value or tx.settings.api.zone
        setattr(host, fact.name, value)
    if facts.allowed_macs is not None:
        host.allowed_macs = _csv(facts.allowed_macs)
    elif not facts.probe_error:
        host.allowed_macs = None  # there is no probe any more; a failed probe keeps its last good list


def _steady(capacity: Capacity, known: int | None, now: int) -> int:
    """The capacity after a heartbeat: a change that is too small to count is none."""
    return known if known is not None and abs(now - known) <= known * capacity.steady else now


def _csv(values: Iterable[str]) -> str:
    return ",".join(sorted(set(values)))


def _pins(tx: Transaction, host_id: str) -> int:
    return tx.session.scalar(select(func.count()).select_from(LeasePin).where(LeasePin.host_id == host_id)) or 0
