"""What there was room for, counted by the simulation itself, and whether an instance had a cause to end in ERROR."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import netaddr

from controller.domain.networks import NetworkKind
from controller.domain.placement_groups import GroupStrategy
from controller.domain.reasons import ReasonCode
from controller.domain.states import Event, State
from tests.simulation.database import SimulationDatabase
from tests.simulation.faults import Fault
from tests.simulation.hosts import Host
from tests.simulation.simulator import Process, Simulator

ADDRESSES = ReasonCode.NO_FREE_ADDRESS
CAPACITY = ReasonCode.NO_CAPACITY
# What can keep a request from being placed in time, if there is enough of it.
_HINDRANCES = (
    Fault.CRASH,
    Fault.PAUSE,
    Fault.STATEMENT_FAILS,
    Fault.RACE_LOST,
    Fault.COMMIT_FAILS,
    Fault.COMMIT_UNKNOWN,
    Fault.MESSAGE_LOST,
    Fault.MESSAGE_LATE,
    Fault.SEND_FAILS,
    Fault.SEND_UNKNOWN,
)
_ENOUGH_STRIKES = 3
# Nothing is placed while a service is away; what is being built on a host that is silent for so long may be too late.
_PLACING_AWAY_S, _BUILDING_AWAY_S = 20, 300
# The last and the first address belong to no guest, the second one to the gateway.
_NOT_FOR_GUESTS = 3


@dataclass(frozen=True)
class Failed:
    """An instance that has just come to ERROR."""

    id: str
    event: str
    before: State
    entered: float
    reason: str
    code: str
    network_id: str
    shape: tuple[int, int, int]
    reservation_id: str
    needed: bool
    group_id: str | None
    wanted_ip: str

    @property
    def text(self) -> str:
        """For a breach."""
        return f"{self.id[:8]} goes from {self.before} to ERROR ({self.event}: {self.reason[:120]})"


class Oracle:
    """Counts for itself, from the rows, and knows what this run has injected."""

    hosts: Sequence[Host]
    processes: Callable[[], Sequence[Process]]

    def __init__(self, simulator: Simulator, sim_database: SimulationDatabase) -> None:
        self._simulator = simulator
        self._sim_database = sim_database
        # What the operators did, and when it was: hosts given up by name, outages of broker and database.
        self.force_removed: set[str] = set()
        self.restored_at: float | None = None
        self.outages: list[tuple[float, float]] = []

    # --- room ---

    def free_addresses(self, network_id: str) -> int:
        """Addresses that a guest of the network could have now."""
        kind, cidr = self._sim_database.peek("SELECT kind, cidr FROM networks WHERE id = ?", network_id)[0]
        taken = "instance_id IS NOT NULL OR quarantine_host IS NOT NULL OR free_after > ?"
        now = str(self._simulator.true_time - timedelta(seconds=10))[:19]
        ((count, unusable),) = self._sim_database.peek(
            f"SELECT count(*), coalesce(sum({taken}), 0) FROM leases WHERE network_id = ?", now, network_id
        )
        if kind == NetworkKind.PINNED:
            return int(count - unusable)
        return int(netaddr.IPNetwork(cidr).size) - _NOT_FOR_GUESTS - int(unusable)

    def is_free(self, network_id: str, ip: str) -> bool:
        """Whether this very address is free."""
        now = str(self._simulator.true_time - timedelta(seconds=10))[:19]
        return not self._sim_database.peek(
            "SELECT 1 FROM leases WHERE network_id = ? AND ip = ?"
            " AND (instance_id IS NOT NULL OR quarantine_host IS NOT NULL OR free_after > ?)",
            network_id,
            ip,
            now,
        )

    def requested(self) -> list[tuple[str, int, int, int]]:
        """Network and size of what waits for a host."""
        return self._sim_database.peek(
            "SELECT network_id, vcpus, memory_mib, disk_gib FROM instances WHERE state = 'REQUESTED'"
        )

    def fits(self, shape: tuple[int, int, int], without: frozenset[str] = frozenset()) -> dict[str, int]:
        """How many guests of this shape each host that is up has room for."""
        rows = self._sim_database.peek(
            "SELECT id, vcpus_limit - vcpus_used, memory_limit_mib - memory_used_mib, disk_limit_gib - disk_used_gib"
            " FROM hosts WHERE up AND mode = 'READY'"
        )
        return {
            host: max(0, min(has // need for has, need in zip(free, shape, strict=True) if need))
            for host, *free in rows
            if host not in without
        }

    # --- refusals at the door ---

    def unjust_refusal(self, code: str, network_id: str, shape: tuple[int, int, int], least: int) -> str | None:
        """What was free though a launch was refused, at this very moment; None where the refusal was right."""
        waiting = self.requested()
        if code == "network.no_free_address":
            specs = sum(n == network_id for n, *_ in waiting)
            if self.free_addresses(network_id) - specs >= least:
                return f"{self.free_addresses(network_id)} addresses are free"
        if code == "placement.no_valid_host" and not waiting and sum(self.fits(shape).values()) >= least:
            return f"there is room on {self.fits(shape)}"
        return None

    # --- ends in ERROR ---

    def unjust_errors(self, failed: Sequence[Failed]) -> list[str]:
        """Those of one transaction that nothing explains that was really so, or that this run has injected."""
        found: list[str] = []
        for reservation_id in dict.fromkeys(f.reservation_id for f in failed):
            members = [f for f in failed if f.reservation_id == reservation_id]
            why = self._why_not(members[0], max(1, sum(f.needed for f in members)))
            found += [f"{f.text}, but {why}" for f in members if why]
        return found

    def _why_not(self, failed: Failed, needed: int) -> str | None:
        """What speaks against this end; None where it has a cause."""
        if failed.before is State.REQUESTED and failed.event == Event.FAILED:
            return self._refusal(failed, needed)
        match failed.event, failed.before:
            case (Event.HOST_GONE, _):
                return None if self.force_removed else "no host was removed by force"
            case (Event.EXPIRED, State.REQUESTED):
                return None if self._hindered(failed.entered) else "nothing hindered its placement"
            case (Event.EXPIRED, _):
                return None if self._a_host_was_away(failed.entered) else "no host was away for long"
            case (Event.FAILED, _):
                return self._failure(failed)
            case (Event.GONE, _):  # a delete that the row does not know any more
                return None if self.restored_at is not None else "no older copy of the database was put back"
        return f"nothing explains {failed.event}"

    def _refusal(self, failed: Failed, needed: int) -> str | None:
        if failed.code not in (ADDRESSES, CAPACITY):
            return f"{failed.code} is no reason to refuse a request"
        if failed.wanted_ip and not self.is_free(failed.network_id, failed.wanted_ip):
            return None
        free, room = self.free_addresses(failed.network_id), self._room(failed)
        if min(free, room) < needed:
            return None
        return f"there is room for {room} and {free} addresses are free, {needed} were needed"

    def _room(self, failed: Failed) -> int:
        peek = self._sim_database.peek
        without: frozenset[str] = frozenset()
        spread = False
        if failed.group_id:
            spread = peek("SELECT strategy FROM placement_groups WHERE id = ?", failed.group_id) == [
                (GroupStrategy.SPREAD,)
            ]
            members = peek(
                "SELECT DISTINCT host_id FROM instances WHERE group_id = ? AND host_id IS NOT NULL", failed.group_id
            )
            without = frozenset(h for (h,) in members) if spread else without
        fits = self.fits(failed.shape, without)
        if spread:
            fits = {host: min(1, n) for host, n in fits.items()}
        if peek("SELECT 1 FROM networks WHERE id = ? AND kind = ?", failed.network_id, NetworkKind.PINNED):
            fits = {host: min(n, self._pinned(failed, host)) for host, n in fits.items()}
            return max(fits.values(), default=0)  # a lease may be pinned to several: their sum is not known
        return sum(fits.values())

    def _pinned(self, failed: Failed, host: str) -> int:
        which = "AND l.ip = ?" if failed.wanted_ip else "AND ? = ''"
        ((free,),) = self._sim_database.peek(
            "SELECT count(*) FROM leases l JOIN lease_pins p ON p.lease_id = l.id"
            f" WHERE l.network_id = ? AND p.host_id = ? AND l.instance_id IS NULL"
            f" AND l.quarantine_host IS NULL {which}",
            failed.network_id,
            host,
            failed.wanted_ip,
        )
        return int(free)

    # --- what was injected ---

    def _hindered(self, since: float) -> bool:
        simulator = self._simulator
        if simulator.faults.struck(_HINDRANCES, since) >= _ENOUGH_STRIKES or self._was_restored(since):
            return True
        away = [p.away_s(since, simulator.now) for p in self.processes()]
        away += [min(end, simulator.now) - max(begin, since) for begin, end in self.outages]
        return max(away, default=0.0) >= _PLACING_AWAY_S

    def _a_host_was_away(self, since: float) -> bool:
        away = (h.process.away_s(since, self._simulator.now) for h in self.hosts)
        return max(away, default=0.0) >= _BUILDING_AWAY_S or self._was_restored(since)

    def _was_restored(self, since: float) -> bool:
        return self.restored_at is not None and self.restored_at >= since

    def _failure(self, failed: Failed) -> str | None:
        faults = self._simulator.faults
        if "a failure was simulated" in failed.reason:
            return None if faults.driver_failure_rate else "no driver fails here"
        if "hypervisor" in failed.reason:
            return None if faults.counts[Fault.HYPERVISOR_AWAY] else "no hypervisor was away"
        return "this run has injected no such failure"


def failed_rows(sim_database: SimulationDatabase, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What the oracle needs to know of these instances."""
    names = (
        *("reason", "reason_code", "network_id", "vcpus", "memory_mib", "disk_gib"),
        *("reservation_id", "launch_index", "group_id", "wanted_ip"),
    )
    columns = ", ".join(f"i.{name}" for name in names)
    return {
        instance_id: dict(zip((*names, "min_count"), values, strict=True))
        for instance_id in ids
        for values in sim_database.peek(
            f"SELECT {columns}, r.min_count FROM instances i JOIN reservations r ON r.id = i.reservation_id"
            " WHERE i.id = ?",
            instance_id,
        )
    }
