"""Promise 5 on the hosts: nothing without a row that owns it, and what the rows say is there."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, select

from controller.db.bulk import among
from controller.db.models import Host, Instance
from controller.domain.guests import Power
from controller.domain.messages import HostObservation
from controller.domain.names import tap_name
from controller.domain.states import State
from controller.operations.audit.observed_state import EvidenceCheck, ObservedState
from controller.operations.audit.violation import GRACE_S, Remedy, Repair, Violation
from controller.operations.cloud import Transaction
from controller.operations.instances.locking import chunks

_HEXADECIMAL = "0123456789abcdef"
_SEE_BOTH = "look at both hosts, then `virsh destroy` the one that is too much"
_ONE_MACHINE = (
    "both names are one machine, by its boot id: stop the agent that has the wrong one, then remove that host"
)
_NEWER = "only a newer release knows this state: look with that one"
_REPAIR = "`pileus audit --repair` removes it, if nothing of it is needed"


@dataclass(frozen=True)
class Row:
    """An instance, as far as it matters here."""

    id: str
    state: str
    generation: int
    host_id: str | None
    state_since: datetime


_COLUMNS = (Instance.id, Instance.state, Instance.generation, Instance.host_id, Instance.state_since)


def strays(tx: Transaction, observed: ObservedState) -> list[Violation]:
    """Every domain and every disk belongs to an instance that is on this host."""
    rows = read_rows(tx, observed.hosts.values())
    boots = {row.id: row.boot_id for row in tx.session.execute(select(Host.id, Host.boot_id))}
    return [
        violation
        for host in sorted(observed.hosts)
        for violation in _strays(observed.hosts[host], rows, observed, boots)
    ]


def _strays(
    seen: HostObservation, rows: Mapping[str, Row], observed: ObservedState, boots: Mapping[str, str]
) -> Iterator[Violation]:
    generations = {d.instance_id: d.generation for d in seen.disks}
    powers = {g.instance_id: g.power for g in seen.guests}
    generations |= {g.instance_id: g.generation for g in seen.guests}
    for instance_id in sorted(generations.keys() - set(seen.pending)):
        row = rows.get(instance_id)
        if row is not None and row.host_id == seen.host:
            continue
        power = powers.get(instance_id)
        thing = "a disk" if power is None else f"a domain ({power.lower().replace('_', ' ')})"
        generation = max(row.generation if row else 0, generations[instance_id] + 1)
        remedy: Remedy | None = Remedy(Repair.REMOVE_GUEST, seen.host, instance_id, generation)
        advice = _REPAIR
        if row is None:
            owner = "no row owns it"
        elif row.host_id is None:
            owner = f"its instance is {row.state}"
            if not State(row.state).known:
                remedy, advice = None, _NEWER
            elif row.state == State.REQUESTED:
                remedy, advice = None, "it may be the one that is asked for: look at `pileus instance explain`"
        else:
            owner = f"its instance is {row.state} on {row.host_id}"
            if not State(row.state).known:
                remedy, advice = None, _NEWER
            elif not _has_guest(observed.hosts.get(row.host_id), instance_id):
                remedy, advice = None, _SEE_BOTH
            elif boots.get(row.host_id, "") == boots.get(seen.host) != "":
                remedy, advice = None, _ONE_MACHINE
        yield Violation(
            5, f"{seen.host} has {thing} of it, {owner}", instance_id, advice, remedy, f"stray on {seen.host}"
        )


def taps(tx: Transaction, observed: ObservedState) -> list[Violation]:
    """Every tap belongs to an instance on this host, or to a domain that is told of anyway."""
    rows = read_rows(tx, observed.hosts.values())
    cloud_id = tx.settings.general.cloud_id
    found = []
    for host, seen in sorted(observed.hosts.items()):
        owners = {r.id for r in rows.values() if r.host_id == host} if seen.taps else set()
        owners |= {g.instance_id for g in seen.guests} | {d.instance_id for d in seen.disks} | set(seen.pending)
        firsts = {tap_name(cloud_id, i) for i in owners}
        beginnings = {name[:-1] for name in firsts}
        for tap in seen.taps:
            if tap in firsts or (tap[-1] not in _HEXADECIMAL and tap[:-1] in beginnings):
                continue
            advice = f"`ip link delete {tap}` there; --repair does it unless a process has it open"
            remedy = Remedy(Repair.REMOVE_TAP, host, tap)
            found.append(Violation(5, f"{host} has this interface, no row owns it", tap, advice, remedy, f"on {host}"))
    return found


def power(tx: Transaction, observed: ObservedState) -> list[Violation]:
    """What is ACTIVE runs, what is STOPPED does not and has its disk, what is UNKNOWN is on a host that is silent."""
    rows: dict[str, list[Row]] = defaultdict(list)
    for row in read_rows(tx, ()).values():
        rows[row.host_id or ""].append(row)
    found = []
    for host, seen in sorted(observed.hosts.items()):
        powers = {g.instance_id: g.power for g in seen.guests}
        disks = {d.instance_id for d in seen.disks}
        pending = set(seen.pending)
        for row in rows[host]:
            if row.id not in pending:
                found += _power(tx, row, powers.get(row.id), has_disk=row.id in disks)
    return found


def _power(tx: Transaction, row: Row, guest: Power | None, *, has_disk: bool) -> list[Violation]:
    if guest is not None and not guest.known:
        return []  # only the release of its host knows whether that is right
    host = row.host_id or ""
    take = Remedy(Repair.TAKE_POWER, host, row.id, row.generation, guest or Power.SHUT_OFF)
    power_proof = f"power at {row.generation}"
    if row.state in (State.ACTIVE, State.STOPPED) and guest is None and not has_disk:
        what = f"it is {row.state}, {host} has neither a domain nor a disk of it"
        lost = take if row.state == State.ACTIVE else None
        return [Violation(5, what, row.id, "it is lost: terminate it", lost, f"gone at {row.generation}")]
    if row.state == State.ACTIVE and guest is not Power.RUNNING:
        what = f"it is ACTIVE, its guest on {host} does not run"
        return [Violation(5, what, row.id, "let --repair set it to STOPPED, then start it", take, power_proof)]
    if row.state == State.STOPPED and guest is Power.RUNNING:
        return [Violation(5, f"it is STOPPED, its guest runs on {host}", row.id, "stop it again", take, power_proof)]
    if row.state == State.UNKNOWN and row.state_since < tx.now - timedelta(seconds=GRACE_S):
        what = f"it is UNKNOWN, though {host} answers"
        return [
            Violation(5, what, row.id, "is a controller running? the host's next heartbeat tells", take, power_proof)
        ]
    return []


def read_rows(tx: Transaction, observed: Iterable[HostObservation]) -> dict[str, Row]:
    """Every instance that is on a host, and of the others those that hosts have something of."""
    found = {r.id: r for r in _read(tx, Instance.host_id.is_not(None))}
    seen = {i for e in observed for i in (*(g.instance_id for g in e.guests), *(d.instance_id for d in e.disks))}
    for chunk in chunks(sorted(seen - found.keys())):
        found |= {r.id: r for r in _read(tx, among(Instance.id, chunk))}
    return found


def _read(tx: Transaction, where: ColumnElement[bool]) -> list[Row]:
    return [Row(*row) for row in tx.session.execute(select(*_COLUMNS).where(where))]


def _has_guest(seen: HostObservation | None, instance_id: str) -> bool:
    return seen is not None and any(g.instance_id == instance_id for g in seen.guests)


CHECKS: tuple[EvidenceCheck, ...] = (strays, taps, power)
