"""A program of a test that cannot outlive it, whatever it starts and however the test run ends."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

LOG_TAIL = 4000


class ServerError(AssertionError):
    """A server that a test needs did not do what it should: the test fails, it does not skip."""


def find_program(name: str, *, package: str, folders: Sequence[str] = ()) -> str:
    """Path of a program, from ``folders`` first.

    Raises: ServerError: it is missing; names the Debian package that has it.
    """
    search = os.pathsep.join([*folders, os.environ.get("PATH", os.defpath), "/usr/local/sbin:/usr/sbin:/sbin"])
    found = shutil.which(name, path=search)
    if found is None:
        raise ServerError(f"{name} is not installed on this machine: apt-get install {package}")
    return found


def wait_until(done: Callable[[], bool], *, deadline_s: float, what: Callable[[], str]) -> None:
    """Ask ``done`` until it is true.

    Raises: ServerError: not within ``deadline_s``; says ``what()``.
    """
    end = time.monotonic() + deadline_s
    while not done():
        if time.monotonic() > end:
            raise ServerError(f"not within {deadline_s:g} s: {what()}")
        time.sleep(0.05)


def as_user(name: str) -> list[str]:
    """Put before a command to run it as that user; nothing when we are not root anyway."""
    if os.geteuid() != 0:
        return []
    # The kernel forgets the parent-death signal when the user changes.
    return ["setpriv", f"--reuid={name}", f"--regid={name}", "--init-groups", "--pdeathsig=KILL", "--"]


class Guarded:
    """A running program in a process namespace of its own.

    The kernel ends everything in the namespace with its first process, and that one with our own
    thread: daemons that double-fork, as Erlang's epmd does, are gone too.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        prefix: Sequence[str] = (),
    ) -> None:
        """Start ``argv``; ``prefix`` is a program that executes the guard, as nsenter does."""
        unprivileged = [] if os.geteuid() == 0 else ["--user", "--map-current-user"]
        guard = ["setpriv", "--pdeathsig=KILL", "--", "unshare", *unprivileged]
        guard += ["--pid", "--fork", "--kill-child=KILL", "--"]
        self.name = Path(argv[0]).name
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*prefix, *guard, *argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
                cwd=cwd or "/",
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """Process id of the program itself as seen from here, 0 if it is not there (yet)."""
        for status in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                # "pid (name) state parent ...": the name may hold anything
                if int(status.read_text().rpartition(")")[2].split()[1]) == self._process.pid:
                    return int(status.parent.name)
        return 0

    def log_tail(self) -> str:
        with contextlib.suppress(OSError):
            return self.log.read_text(errors="replace")[-LOG_TAIL:]
        return ""

    def wait_until(self, done: Callable[[], bool], *, deadline_s: float, what: str) -> None:
        """Ask ``done`` until it is true.

        Raises: ServerError: the program ended or the deadline passed; with the end of its log.
        """

        def done_or_dead() -> bool:
            if self.running:
                return done()
            raise ServerError(f"{self.name} ended with status {self._process.returncode}:\n{self.log_tail()}")

        wait_until(done_or_dead, deadline_s=deadline_s, what=lambda: f"{what}\n{self.log_tail()}")

    def send_signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            if pid := self.pid:
                os.kill(pid, number)

    def wait(self, *, timeout_s: float) -> None:
        """Wait for the end of the program and of everything it has started.

        Raises: subprocess.TimeoutExpired: still running.
        """
        self._process.wait(timeout_s)

    def stop(self, *, timeout_s: float = 20, number: signal.Signals = signal.SIGTERM) -> None:
        """End it in order, by force after ``timeout_s``. A program that has ended is left alone."""
        if not self._catches(number):
            self.kill()
            return
        self.send_signal(number)
        try:
            self.wait(timeout_s=timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def _catches(self, number: signal.Signals) -> bool:
        """The first process of a namespace never gets a signal that it does not catch (pid_namespaces(7))."""
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{self.pid}/status").read_text()
            mask = int(status.partition("SigCgt:")[2].split()[0], 16)
            return bool(mask >> (number - 1) & 1)
        return False

    def kill(self) -> None:
        """SIGKILL to it and to everything it has started."""
        self.send_signal(signal.SIGKILL)
        try:
            self.wait(timeout_s=5)
        except subprocess.TimeoutExpired:
            self._process.kill()  # and with it, by its parent-death signal, the program
            self.wait(timeout_s=10)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
