"""Services of a site as processes on a machine that a test may break."""

import subprocess
from pathlib import Path

from tests.labs.servers.guarded import wait_until
from tests.labs.system.first_cloud import command_line
from tests.labs.system.machine import Machine
from tests.labs.system.running_cloud import clean_environment, leaders, processes_with


class Served:
    """The processes of `pileus serve` on one machine, each of which logs to a file in ``logs``."""

    def __init__(self, machine: Machine, state: Path, *, programs: Path, logs: Path) -> None:
        self._machine = machine
        self._state = state
        self._programs = programs
        self._logs = logs
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, name: str) -> None:
        """Start one service; the machine ends it with its power."""
        argv = [*self._machine.prefix, str(self._programs / "pileus"), "--state", str(self._state), "serve", name]
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean_environment(), cwd="/"
            )
        self._started.append(process)
        wait_until(lambda: bool(self.pids(name)), deadline_s=30, what=lambda: self.log_tail(name))

    def pids(self, name: str) -> list[int]:
        """The processes of one service."""
        ending = f"\0serve\0{name}\0"
        lines = {p: command_line(p) for p in processes_with(str(self._state))}
        return leaders(p for p, line in lines.items() if line.endswith(ending) and not line.startswith("nsenter"))

    def log(self, name: str) -> Path:
        return self._logs / f"{self._machine.name}-{name}.log"

    def log_tail(self, *names: str) -> str:
        """The ends of the logs of these services."""
        logs = {n: self.log(n) for n in names}
        return "\n".join(f"== {p.stem}\n{p.read_text()[-2500:] if p.exists() else ''}" for p in logs.values())

    def end(self) -> None:
        """End what is outside the machine: each nsenter, which also stops itself when its service is stopped."""
        for process in self._started:
            process.kill()
            process.wait(10)
