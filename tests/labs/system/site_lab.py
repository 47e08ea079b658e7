"""The same cloud as a site, each service a process of its own, and faults of one process alone."""

import contextlib
import resource
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

from sqlalchemy import update

from controller.cli.health import api_problem
from controller.db.models import Instance
from controller.domain.clock import system_clock
from controller.operations.hosts import hosts
from tests.labs.servers.guarded import ServerError
from tests.labs.servers.rabbitmq import RabbitMQ
from tests.labs.system.faults_lab import FaultsLab, kill
from tests.labs.system.host_guests import FILLER
from tests.labs.system.served import Served

SERVICES = ("network", "metadata", "scheduler", "controller", "api", "compute")


class SiteLab(FaultsLab):
    """Services as processes on RabbitMQ; the guests' disks are on a small file system of their own."""

    def __init__(self, folder: Path, *, programs: Path) -> None:
        super().__init__(folder, programs=programs, volume_mib=512)
        self._served = Served(self.machine, self.state, programs=programs, logs=folder)

    def engines(self, stack: contextlib.ExitStack) -> Mapping[tuple[str, str], object]:
        # It starts in the network that this thread is in: the machine's.
        broker = stack.enter_context(RabbitMQ())
        stack.callback(self._served.end)
        return {("bus", "url"): broker.url, ("controller", "open_registration"): "true"}

    def up(self) -> None:
        for name in SERVICES:
            if not self._served.pids(name):
                self.start(name)
        self.wait(lambda: self.host_up() and not api_problem(self.settings()), deadline_s=120, what=self.logs)

    def start(self, name: str) -> None:
        """Start one service; the machine ends it with its power."""
        self._served.start(name)

    def agent(self) -> int:
        """The process of the host's agent."""
        (pid,) = self._served.pids("compute")
        return pid

    def restart_agent(self) -> None:
        """kill -9 of the agent, and a new one that takes commands; its log is a new one too."""
        kill(self.agent())
        log = self._served.log("compute")
        log.rename(log.with_suffix(".old"))
        self.start("compute")
        for _ in range(2):  # it takes commands after its first heartbeat
            before = self._last_seen()
            self.wait(lambda b=before: self._last_seen() > b, what=self.logs)  # type: ignore[misc]

    def _last_seen(self) -> datetime:
        return self.read(lambda tx: hosts.list_hosts(tx)[0].last_seen_at)

    def agent_said(self, *words: str) -> bool:
        """Whether one of these is in the agent's log."""
        text = self._served.log("compute").read_text()
        return any(w in text for w in words)

    def expire(self, instance_id: str) -> None:
        """Let the deadline of its state be over."""
        now = system_clock()
        self.write(
            lambda tx: tx.session.execute(update(Instance).where(Instance.id == instance_id).values(deadline_at=now))
        )

    def vcpus_used(self) -> int:
        """What is promised of the host."""
        return self.read(lambda tx: sum(h.vcpus_used for h in hosts.list_hosts(tx)))

    def logs(self) -> str:
        return self._served.log_tail(*SERVICES)

    @contextlib.contextmanager
    def disk_full(self) -> Iterator[None]:
        """The file system of the guests' disks has no block left until the block ends."""
        filler = self.host.inside(self.state / "instances" / FILLER)
        try:
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(64 * 1024))
            yield
        finally:
            filler.unlink(missing_ok=True)


@contextlib.contextmanager
def no_more_files(pid: int) -> Iterator[None]:
    """The process can open nothing until the block ends: "too many open files"."""
    used = {int(p.name) for p in Path(f"/proc/{pid}/fd").iterdir()}
    lowest_free = min(set(range(len(used) + 1)) - used)
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (lowest_free, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


@contextlib.contextmanager
def no_new_processes(pid: int) -> Iterator[None]:
    """The process can start no program and no thread until the block ends.

    By a control group: the limit of a user's processes does not bind root.
    """
    folder = _pids_controller() / f"pileus-test-{pid}"
    home = folder.parent / _group_of(pid).relative_to("/")
    folder.mkdir()
    try:
        (folder / "cgroup.procs").write_text(str(pid))
        (folder / "pids.max").write_text("0")
        yield
    finally:
        (folder / "pids.max").write_text("max")
        for one in (folder / "cgroup.procs").read_text().split():
            (home / "cgroup.procs").write_text(one)
        folder.rmdir()


def _pids_controller() -> Path:
    """Where groups that limit the number of processes are made, by version 1 or 2 of control groups."""
    root = Path("/sys/fs/cgroup")
    if (root / "pids").is_dir():
        return root / "pids"
    if "pids" not in (root / "cgroup.controllers").read_text().split():
        raise ServerError("this machine's kernel has no control group `pids`")
    (root / "cgroup.subtree_control").write_text("+pids")
    return root


def _group_of(pid: int) -> Path:
    lines = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    version_1 = [path for _, names, path in lines if "pids" in names.split(",")]
    return Path((version_1 or [path for number, _, path in lines if number == "0"])[0])
