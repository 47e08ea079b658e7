"""Guests that exist only as rows of a file: the same behaviour as a hypervisor's, hundreds of hosts in a process."""

import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Any

from compute_agent.driver import Capacity, Driver, Found, Pause
from controller.conf.settings import Compute
from controller.domain.errors import DriverError, Unavailable
from controller.domain.guests import OffCause, Power
from controller.domain.messages import GuestSpec, KeptDisk

_KEPT_SCHEMA = """
CREATE TABLE IF NOT EXISTS simulated_kept_disks (
    host TEXT NOT NULL,
    instance TEXT NOT NULL,
    removed_at TEXT NOT NULL,
    PRIMARY KEY (host, instance, removed_at)
) WITHOUT ROWID
"""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS simulated_guests (
    host TEXT NOT NULL,
    instance TEXT NOT NULL,
    power TEXT NOT NULL,
    ip TEXT NOT NULL,
    boots INTEGER NOT NULL,
    PRIMARY KEY (host, instance)
) WITHOUT ROWID
"""
_CONSOLE_BOOTS = 100


class SimulatedSite:
    """The hardware of a simulated site: it and its guests outlive the agents' process.

    Every method may raise ``Unavailable``: the disk of its file is full or broken; nothing was changed.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise _unavailable(error) from error
        for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = OFF", _SCHEMA, _KEPT_SCHEMA):
            self._execute(statement)

    def guests(self, host: str) -> dict[str, tuple[Power, str, int]]:
        """Power, address and number of boots of each guest."""
        rows = self._execute("SELECT instance, power, ip, boots FROM simulated_guests WHERE host = ?", host)
        return {instance: (Power(power), ip, boots) for instance, power, ip, boots in rows}

    def keep(self, host: str, instance_id: str, guest: tuple[Power, str, int]) -> None:
        """Keep what a guest is now."""
        self._execute("INSERT OR REPLACE INTO simulated_guests VALUES (?, ?, ?, ?, ?)", host, instance_id, *guest)

    def remove(self, host: str, instance_id: str) -> None:
        """Forget a guest; absent is fine."""
        self._execute("DELETE FROM simulated_guests WHERE host = ? AND instance = ?", host, instance_id)

    def kept(self, host: str) -> list[KeptDisk]:
        """The disks that were set aside."""
        query = "SELECT instance, removed_at FROM simulated_kept_disks WHERE host = ? ORDER BY instance, removed_at"
        return [KeptDisk(instance, removed_at, 0) for instance, removed_at in self._execute(query, host)]

    def set_aside(self, host: str, instance_id: str, removed_at: datetime) -> None:
        """Keep the disk of a guest; before the guest is forgotten."""
        statement = "INSERT OR IGNORE INTO simulated_kept_disks VALUES (?, ?, ?)"
        self._execute(statement, host, instance_id, removed_at.isoformat())

    def drop_kept(self, host: str, disk: KeptDisk) -> None:
        """Remove a disk that was set aside."""
        statement = "DELETE FROM simulated_kept_disks WHERE host = ? AND instance = ? AND removed_at = ?"
        self._execute(statement, host, disk.instance_id, disk.removed_at)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def _execute(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._db.execute(statement, values).fetchall()
            except sqlite3.Error as error:
                raise _unavailable(error) from error


def _unavailable(error: Exception) -> Unavailable:
    return Unavailable(what="The file of the simulated guests", reason=str(error))


class SimulatedDriver(Driver):
    """One simulated host; its delays are waits of ``pause``, its failures come from ``random``."""

    def __init__(
        self,
        host: str,
        compute: Compute,
        site: SimulatedSite,
        *,
        random: Random | None = None,
        pause: Pause = time.sleep,
    ) -> None:
        self._host = host
        self._compute = compute
        self._site = site
        self._random = random or Random()  # noqa: S311 - a simulation
        self._pause = pause
        self._lock = threading.Lock()
        self._guests = site.guests(host)
        self._went_off: dict[str, OffCause] = {}
        self._kept_disks = tuple(site.kept(host))

    @property
    def boot_id(self) -> str:
        return f"simulated-{self._host}"

    def capacity(self) -> Capacity:
        c = self._compute
        return Capacity(
            "simulated",
            c.simulated_vcpus,
            c.simulated_memory_mib,
            c.simulated_disk_gib,
            guest_overhead_mib=max(0, c.guest_overhead_mib),
        )

    def list_guests(self) -> Mapping[str, Power]:
        return MappingProxyType({i: g[0] for i, g in self._guests.copy().items()})

    def why_off(self, instance_ids: Collection[str]) -> Mapping[str, OffCause]:
        return {i: self._went_off.get(i, OffCause.SHUTDOWN) for i in instance_ids}

    def find_all(self) -> Found:
        with self._lock:
            self._guests = self._site.guests(self._host)  # others may have been at the hardware
            guests = {i: g[0] for i, g in self._guests.items()}
        return Found(guests, disks=frozenset(guests))

    def spawn(self, spec: GuestSpec) -> None:
        if spec.image is None:
            raise DriverError(what="Making the guest", reason="no image was named")
        self._boot(spec)

    def start(self, spec: GuestSpec) -> None:
        if spec.instance_id not in self._guests:
            raise DriverError(what="Starting the guest", reason="its disk is gone")
        self._boot(spec)

    def shut_off(self, instance_id: str, grace_s: float) -> None:  # noqa: ARG002 - at once
        guest = self._guests.get(instance_id)
        if guest is not None and guest[0] is Power.RUNNING:
            self._may_fail("Shutting the guest off")
            self._keep(instance_id, (Power.SHUT_OFF, guest[1], guest[2]))

    def reboot(self, spec: GuestSpec, grace_s: float) -> None:
        self.shut_off(spec.instance_id, grace_s)
        self.start(spec)

    def destroy(self, instance_id: str, *, keep: datetime | None = None) -> None:
        if instance_id in self._guests:
            self._may_fail("Destroying the guest")
            if keep is not None:
                with self._lock:
                    self._site.set_aside(self._host, instance_id, keep)
                    self._kept_disks = tuple(self._site.kept(self._host))
            self._forget(instance_id)
        if keep is None:
            self._drop_kept(lambda disk: disk.instance_id == instance_id)

    def kept(self) -> Sequence[KeptDisk]:
        return self._kept_disks

    def prune_kept(self, before: datetime) -> None:
        self._drop_kept(lambda disk: datetime.fromisoformat(disk.removed_at) < before)

    def console(self, instance_id: str, max_bytes: int) -> bytes:
        guest = self._guests.get(instance_id)
        if guest is None or max_bytes <= 0:
            return b""
        return (f"GUEST-UP {guest[1]}\n".encode() * min(guest[2], _CONSOLE_BOOTS))[-max_bytes:]

    def destroy_all(self) -> None:
        for instance_id in list(self._guests):
            self._forget(instance_id)
        self._drop_kept(lambda _: True)

    def power_lost(self, instance_id: str, cause: OffCause = OffCause.SHUTDOWN) -> None:
        """What a guest does that powers itself off, or crashes: for tests."""
        self._went_off[instance_id] = cause
        _, ip, boots = self._guests[instance_id]
        self._keep(instance_id, (Power.SHUT_OFF, ip, boots))

    def _boot(self, spec: GuestSpec) -> None:
        power, ip, boots = self._guests.get(spec.instance_id, (Power.SHUT_OFF, "", 0))
        if power is Power.RUNNING:
            return
        if self._compute.simulated_boot_s:
            self._pause(self._compute.simulated_boot_s * self._random.uniform(0.5, 1.5))
        self._may_fail("Starting the guest")
        self._keep(spec.instance_id, (Power.RUNNING, spec.nics[0].ip if spec.nics else ip or "none", boots + 1))

    def _keep(self, instance_id: str, guest: tuple[Power, str, int]) -> None:
        with self._lock:
            self._site.keep(self._host, instance_id, guest)
            self._guests[instance_id] = guest

    def _drop_kept(self, is_dropped: Callable[[KeptDisk], bool]) -> None:
        if not any(is_dropped(d) for d in self._kept_disks):
            return
        with self._lock:
            for disk in filter(is_dropped, self._kept_disks):
                self._site.drop_kept(self._host, disk)
            self._kept_disks = tuple(self._site.kept(self._host))

    def _forget(self, instance_id: str) -> None:
        with self._lock:
            self._site.remove(self._host, instance_id)
            self._guests.pop(instance_id, None)

    def _may_fail(self, what: str) -> None:
        rate = self._compute.simulated_failure_rate
        if rate and self._random.random() < rate:
            raise DriverError(what=what, reason="a failure was simulated")
