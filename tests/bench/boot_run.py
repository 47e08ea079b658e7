"""One request for many real guests, watched until each of them answers."""

import base64
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
from sqlalchemy import select

from controller.db.models import Instance, Lease
from controller.domain.states import State
from controller.operations.audit.audit import audit
from controller.operations.cloud import Transaction
from tests.bench.deployment import GUEST_TYPE, Deployment
from tests.bench.ec2_client import Ec2Client
from tests.bench.pinger import Pinger
from tests.labs.system.running_cloud import Shell

_POLL_S, _LOOK_EVERY_S, _PING_EVERY_S = 0.05, 1.0, 0.5
_LOGINS_AT_ONCE, _LOGIN_S = 2, 60
_CURVE_ROWS = 60
_KEY_NAME = "bench"
_CONTROL = ("api", "scheduler", "network", "controller", "compute", "metadata", "rabbitmq", "database")


CURVE = ("t_s", "REQUESTED", "BUILDING", "ACTIVE", "answering")


class BootRun:
    """``measure`` does it all once; ``curve`` then has rows of ``CURVE``: seconds, and how many instances are where."""

    def __init__(self, site: Deployment, key: Path, deadline_s: float) -> None:
        self._site = site
        self._key = key
        self._deadline_s = deadline_s
        self._states: Counter[str] = Counter()
        self._addresses: dict[str, str] = {}  # of those that are ACTIVE
        self._answered: dict[str, float] = {}
        self.curve: list[list[float]] = []
        self.wall_s = 0.0

    def measure(self) -> dict[str, object]:
        """Ask for all guests, wait for them, count what works."""
        assert self._site.guests is not None
        client = Ec2Client(self._site.url, self._site.key, self._site.secret)
        material = base64.b64encode(self._key.with_suffix(".pub").read_bytes()).decode()
        client.call("ImportKeyPair", {"KeyName": _KEY_NAME, "PublicKeyMaterial": material})
        control_s = self._control_cpu_s()
        begin = time.monotonic()
        ids = client.run(
            self._site.guests.count, ImageId=self._site.image_id, InstanceType=GUEST_TYPE, KeyName=_KEY_NAME
        )
        accepted_s = time.monotonic() - begin
        client.close()
        with Pinger() as pinger:
            self._watch(pinger, begin, len(ids))
        self.wall_s = round(max(self._answered.values(), default=time.monotonic() - begin), 2)
        control_s = self._control_cpu_s() - control_s
        guests_s, guests_mib = _guests()
        logins = self._log_in()
        return {
            "asked": self._site.guests.count,
            "active": self._states[State.ACTIVE],
            "errors": self._states[State.ERROR],
            "leases": self._count_leases(),
            "ping": len(self._answered),
            "ssh": logins,
            "accepted_s": round(accepted_s, 3),
            "wall_s": self.wall_s,
            "control_cpu_s": round(control_s, 1),
            "guests_cpu_s": round(guests_s, 1),
            "control_cpu_share": round(control_s / max(0.1, control_s + guests_s), 3),
            "disk_mib_per_guest": round(self._disk_mib() / max(1, len(ids)), 2),
            "guest_rss_mib": round(guests_mib / max(1, len(ids)), 1),
            "rss_mib": self._site.rss_mib(),
            "audit_breaches": len(self._site.cloud.read(lambda tx: audit(tx))),
        }

    def _watch(self, pinger: Pinger, begin: float, count: int) -> None:
        """Until every one answers or has failed, or the deadline."""
        looked_at = asked_at = 0.0
        while (now := time.monotonic()) - begin < self._deadline_s:
            if now - looked_at >= _LOOK_EVERY_S:
                looked_at = now
                self._site.check_alive()
                self._look()
                self._plot(now - begin)
            if now - asked_at >= _PING_EVERY_S:
                asked_at = now
                pinger.ask(self._addresses.keys() - self._answered.keys())
            for address in pinger.answers() & self._addresses.keys():
                self._answered.setdefault(address, time.monotonic() - begin)
            if len(self._answered) + self._states[State.ERROR] >= count:
                break
            time.sleep(_POLL_S)
        self._look()
        self._plot(time.monotonic() - begin)
        self.curve = thinned(self.curve)

    def _look(self) -> None:
        """The states as the database has them, and where the guests are that run."""
        self._states.clear()
        for state, address in self._site.cloud.read(_instances):
            self._states[state] += 1
            if state == State.ACTIVE and address:
                self._addresses[address] = state

    def _plot(self, at_s: float) -> None:
        states = [self._states[state] for state in (State.REQUESTED, State.BUILDING, State.ACTIVE)]
        self.curve.append([round(at_s, 1), *states, len(self._answered)])

    def _control_cpu_s(self) -> float:
        used: Mapping[str, float] = self._site.cpu_s()
        return sum(used.get(name, 0.0) for name in _CONTROL) + sum(_cpu_s(p) for p in _processes("libvirtd", "dnsmasq"))

    def _count_leases(self) -> int:
        """Lines of the lease files: each is an address that a guest has asked for."""
        files = (self._site.folder / "network").glob("*/leases")
        return sum(len(f.read_text().splitlines()) for f in files)

    def _log_in(self) -> int:
        shell = Shell(self._key)

        def one(address: str) -> bool:
            deadline = time.monotonic() + _LOGIN_S
            while not shell.succeeds(address, "true"):
                if time.monotonic() > deadline:
                    return False
            return True

        with ThreadPoolExecutor(_LOGINS_AT_ONCE) as pool:
            return sum(pool.map(one, sorted(self._answered)))

    def _disk_mib(self) -> float:
        """What the guests' own files take."""
        files = [f for f in (self._site.folder / "instances").glob("*/*") if f.name != "base"]
        return sum(f.stat().st_blocks * 512 for f in files) / 2**20


def thinned(rows: list[list[float]]) -> list[list[float]]:
    """So many of the rows as a chart needs, the first and the last among them."""
    step = -(-len(rows) // _CURVE_ROWS) or 1
    return [*rows[:-1:step], *rows[-1:]]


def _instances(tx: Transaction) -> list[tuple[str, str | None]]:
    query = select(Instance.state, Lease.ip).outerjoin(Lease, Lease.instance_id == Instance.id)
    return [(str(state), ip) for state, ip in tx.session.execute(query)]


def _guests() -> tuple[float, float]:
    """CPU seconds and resident MiB of all QEMU processes: there are no others in here."""
    found: Sequence[psutil.Process] = _processes("qemu-system-x86_64", "qemu-system-x86")
    return sum(_cpu_s(p) for p in found), sum(p.memory_info().rss for p in found) / 2**20


def _processes(*names: str) -> list[psutil.Process]:
    return [p for p in psutil.process_iter(["name"]) if p.info["name"] in names]


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
