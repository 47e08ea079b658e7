"""A whole site for a benchmark: private servers, each service a process of its own, hosts simulated or this one."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import psutil
from sqlalchemy import func, select

from controller.cli.health import api_problem
from controller.conf.load import load_settings
from controller.conf.settings import Settings
from controller.db.models import Host, Instance
from controller.domain.lease_file import LeaseFormat, read_leases
from controller.domain.networks import NetworkKind
from controller.operations.accounts import projects, users
from controller.operations.cloud import Cloud, Transaction
from controller.operations.database import schema
from controller.operations.hosts.hosts import list_hosts
from controller.operations.images.images import import_image
from controller.operations.instances import instance_types
from controller.operations.networks.networks import create_network
from controller.operations.networks.pinned_leases import import_leases
from controller.operations.secrets import create_key_file
from tests.labs.servers.mariadb import MariaDB
from tests.labs.servers.postgresql import PostgreSQL
from tests.labs.servers.rabbitmq import RabbitMQ
from tests.labs.servers.server import free_ports
from tests.simulation.database import shared_memory

SERVICES = ("api", "scheduler", "network", "controller", "compute")
GUEST_TYPE = "bench.tiny"
# Leases of one pinned network: a /16 has 65,536 addresses.
_IN_A_NETWORK = 50_000
# A cloud's environment (requirements/cloud.lock) has no rich; that of the tests has, and structlog would import it.
_MAIN = "import sys; sys.modules['rich'] = None; from controller.cli.main import main; main()"
_SLOW = re.compile(r"a transaction took long .*?operation=(\S+) .*?seconds=([\d.]+)")


@dataclass(frozen=True)
class Guests:
    """Real guests on this machine instead of simulated hosts: networks, metadata and QEMU, of one image."""

    image: Path
    count: int
    memory_mib: int
    tcg_cache_mib: int
    boots_at_once: int = 0

    def options(self) -> dict[tuple[str, str], object]:
        """What the configuration says of them: a host that has room for all."""
        return {
            ("network", "driver"): "linux",
            ("compute", "driver"): "libvirt",
            ("compute", "vcpus"): self.count,
            ("compute", "memory_mib"): self.count * self.memory_mib,
            ("compute", "guest_overhead_mib"): 0,
            ("compute", "disk_gib"): self.count,
            ("compute", "tcg_cache_mib"): self.tcg_cache_mib,
            ("compute", "boots_at_once"): self.boots_at_once,
        }


@dataclass
class Deployment:
    """The running site; use it as a context manager. ``database`` sqlite means all in one process, embedded."""

    folder: Path
    database: str
    hosts: int
    schedulers: int = 1
    leases: int = 0
    guests: Guests | None = None
    settings: Settings = field(init=False)
    cloud: Cloud = field(init=False)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    key: str = ""
    secret: str = ""
    project_id: str = ""
    image_id: str = ""
    subnets: list[tuple[str, int]] = field(default_factory=list)
    rabbitmq: RabbitMQ | None = None
    server: PostgreSQL | MariaDB | None = None
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> "Deployment":
        with ExitStack() as undo:
            undo.callback(self._stack.close)
            self._begin()
            undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        """Where the API answers."""
        return self.settings.public_url

    def rss_mib(self) -> dict[str, float]:
        """Resident memory of each process of ours, and of all together."""
        found = {}
        for name, process in self.processes.items():
            found[name] = round(_rss_mib(process.pid), 1)
        return {**found, "all": round(sum(found.values()), 1)}

    def services_rss_mib(self) -> float:
        """Resident memory of all services together, simulated agents left out."""
        return round(sum(_rss_mib(p.pid) for n, p in self.processes.items() if n != "compute"), 1)

    def pss_mib(self) -> dict[str, float]:
        """Memory of each process of ours, what it shares with others by its share."""
        return {n: round(psutil.Process(p.pid).memory_full_info().pss / 2**20, 1) for n, p in self.processes.items()}

    def slow_transactions(self) -> dict[str, str]:
        """How often a service logged that a transaction took long, by operation, and the longest of each."""
        found: dict[str, list[float]] = defaultdict(list)
        for file in sorted(self.folder.glob("*.log")):
            for operation, seconds in _SLOW.findall(file.read_text(errors="replace")):
                found[f"{file.stem} {operation}"].append(float(seconds))
        return {name: f"{len(times)} up to {max(times)} s" for name, times in found.items()}

    def servers_mib(self) -> dict[str, float]:
        """Memory of the broker and the database, what their processes share counted once."""
        found = {}
        for name, server in (("rabbitmq", self.rabbitmq), ("database", self.server)):
            if server is not None:
                found[name] = round(sum(p.memory_full_info().pss for p in _family(server.pid)) / 2**20, 1)
        return found

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds of each process of ours, and of the servers."""
        found = {n: _cpu_s(psutil.Process(p.pid)) for n, p in self.processes.items()}
        for name, server in (("rabbitmq", self.rabbitmq), ("database", self.server)):
            if server is not None:
                found[name] = sum(_cpu_s(p) for p in _family(server.pid))
        return {n: round(s, 2) for n, s in found.items()}

    def check_alive(self) -> None:
        """Raise where a service has ended: nothing would ever come of waiting."""
        ended = [name for name, process in self.processes.items() if process.poll() is not None]
        if ended:
            raise RuntimeError(f"ended: {', '.join(ended)}\n{self.log_ends()}")

    def log_ends(self) -> str:
        """The last lines that each service logged."""
        ends = [f"== {f.name}\n{f.read_text(errors='replace')[-3000:]}" for f in sorted(self.folder.glob("*.log"))]
        return "\n".join(ends)

    def _begin(self) -> None:
        (port,) = free_ports(1)
        options: dict[tuple[str, str], object] = {
            ("DEFAULT", "state_dir"): str(self.folder),
            ("DEFAULT", "cloud_id"): f"{os.getpid():08x}",
        }
        options |= {("api", "listen_port"): port, ("network", "project_prefix_length"): 16}
        if self.guests is not None:
            options |= self.guests.options()
        else:
            # Each host has a disk of its own for its journal: thousands of them are not to wait for this machine's.
            disks = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="pileus-bench-", dir=shared_memory()))
            (self.folder / "agent").symlink_to(disks)
            options |= {("network", "driver"): "none", ("compute", "driver"): "simulated"}
            options |= {("compute", "simulated_hosts"): self.hosts}
        options |= {("quota", "instances"): 10**6, ("quota", "vcpus"): 10**6, ("quota", "memory_mib"): 10**9}
        options |= {("DEFAULT", "log_level"): "WARNING", ("controller", "open_registration"): "true"}
        if self.database != "sqlite":
            server = _database_server(self.database)
            self.server = server
            self._stack.enter_context(server)
            self.rabbitmq = self._stack.enter_context(RabbitMQ())
            options |= {("database", "url"): server.new_database(), ("bus", "url"): self.rabbitmq.url}
        file = self.folder / "pileus.conf"
        file.write_text(_ini(options))
        self.settings = load_settings(file)
        create_key_file(self.settings.secret_key_file)
        schema.upgrade(self.settings)
        self.cloud = Cloud.connect(self.settings)
        self._stack.callback(self.cloud.bus.close)  # type: ignore[attr-defined]
        self._stack.callback(self.cloud.database.close)
        self.cloud.write(self._populate)
        image = self.guests.image if self.guests else self.folder / "tiny.raw"
        if self.guests is None:
            image.write_bytes(b"x" * 512)
        self.image_id = import_image(self.cloud, image, name="tiny", project_id=self.project_id, public=True).id
        if self.guests is not None:
            self._stack.callback(self._destroy)
        self._serve()
        wait_until(lambda: self._hosts_up() == self.hosts, 120 + self.hosts / 10, self.log_ends)
        wait_until(lambda: not api_problem(self.settings), 60, self.log_ends)
        if self.leases:
            self._pin(self.leases)

    def _pin(self, leases: int) -> None:
        """Pinned networks, as many as are needed: each lease on one host, as many on each."""
        hosts = [h.id for h in self.cloud.read(list_hosts)]
        for number in range(-(-leases // _IN_A_NETWORK)):
            cidr, name = f"10.{64 + number}.0.0/16", f"pinned-{number}"
            network = self.cloud.write(
                lambda tx, c=cidr, n=name: create_network(tx, self.project_id, n, c, kind=NetworkKind.PINNED)  # type: ignore[misc]
            )
            count = min(_IN_A_NETWORK, leases - number * _IN_A_NETWORK)
            rows = ["ip,mac,name,hosts"]
            for n in range(count):
                address = n + 256
                high, low = address >> 8, address & 255
                mac = f"02:00:00:{number:02x}:{high:02x}:{low:02x}"
                rows.append(f"10.{64 + number}.{high}.{low},{mac},m{number}-{n},{hosts[n % len(hosts)]}")
            file = read_leases("\n".join(rows).encode(), LeaseFormat.CSV)
            self.cloud.write(lambda tx, i=network.id, f=file: import_leases(tx, i, f))  # type: ignore[misc]
            self.subnets.append((network.id.replace("net-", "subnet-"), count))

    def _serve(self) -> None:
        names = ["all"] if self.database == "sqlite" else [*SERVICES]
        names += ["metadata"] if self.guests is not None and self.database != "sqlite" else []
        names += [f"scheduler-{n}" for n in range(2, self.schedulers + 1)] if self.database != "sqlite" else []
        for name in names:
            self.processes[name] = self._stack.enter_context(self._process(name))

    @contextmanager
    def _process(self, name: str) -> Iterator["subprocess.Popen[bytes]"]:
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [*self._command("serve"), name.partition("-")[0]], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-c", _MAIN, "--state", str(self.folder), *arguments]

    def _destroy(self) -> None:
        """The guests, their networks and the host's libvirtd, by the cloud's own command."""
        done = subprocess.run(
            self._command("down", "--destroy"), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600
        )
        if done.returncode:
            raise RuntimeError(f"the site could not be removed: {done.stdout}{done.stderr}")

    def _populate(self, tx: Transaction) -> None:
        schema.ensure_cloud_row(tx)
        instance_types.seed(tx)
        if self.guests is not None:
            instance_types.add_type(tx, GUEST_TYPE, vcpus=1, memory_mib=self.guests.memory_mib, disk_gib=1)
        self.project_id = projects.create_project(tx, "bench").id
        user = users.create_user(tx, "bench", self.project_id, tx.ids.secret())
        key, self.secret = users.create_access_key(tx, user.id)
        self.key = key.id

    def _hosts_up(self) -> int:
        self.check_alive()
        return self.cloud.read(lambda tx: tx.session.query(Host).filter(Host.up).count())


def states_of(site: Deployment) -> dict[str, int]:
    """How many instances are in each state."""
    query = select(Instance.state, func.count()).group_by(Instance.state)
    return site.cloud.read(lambda tx: {str(row[0]): int(row[1]) for row in tx.session.execute(query)})


def wait_until(
    condition: Callable[[], bool], timeout_s: float, tell: Callable[[], str] = str, *, pause_s: float = 0.02
) -> None:
    """Wait on a condition, with a deadline; ``tell`` says what went on when it does not come true."""
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not in time ({timeout_s:g} s)\n{tell()}")
        time.sleep(pause_s)


def _database_server(kind: str) -> PostgreSQL | MariaDB:
    """One that waits for its disk, as a site's does, and counts statements."""
    if kind == "mariadb":
        return MariaDB(durable=True)
    return PostgreSQL(durable=True, options={"shared_preload_libraries": "pg_stat_statements"})


def _ini(options: dict[tuple[str, str], object]) -> str:
    sections = dict.fromkeys(s for s, _ in options)
    return "".join(
        f"[{section}]\n" + "".join(f"{n} = {v}\n" for (s, n), v in options.items() if s == section)
        for section in sections
    )


def _rss_mib(pid: int) -> float:
    return float(psutil.Process(pid).memory_info().rss / 2**20)


def _family(pid: int) -> Sequence[psutil.Process]:
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
