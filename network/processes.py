"""Daemons that outlive us: found again by pid file or command line, and signalled only when they are still those."""

import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from controller.domain.errors import HostError

_PROC = Path("/proc")


def pid_in(file: Path) -> int | None:
    """The process id that a pid file names."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def runs(pid: int, argument: str) -> bool:
    """Whether this process lives and was started with exactly this argument."""
    return argument in _arguments(pid)


def started_with(program: str, prefix: str) -> dict[int, str]:
    """Every process of this program that has an argument with this beginning, and the argument."""
    found = {}
    for entry in _PROC.iterdir():
        if entry.name.isdecimal():
            name, *arguments = _arguments(int(entry.name)) or [""]
            matching = [a for a in arguments if a.startswith(prefix)]
            if matching and Path(name).name == Path(program).name:
                found[int(entry.name)] = matching[0]
    return found


def hang_up(pid: int, argument: str) -> bool:
    """Send SIGHUP; False if the process is gone."""
    with _held(pid, argument) as descriptor:
        if descriptor is None:
            return False
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGHUP)
            return True
        return False


def end(pid: int, argument: str, timeout_s: float = 5) -> None:
    """End a process, by force when it does not go; returns when it is gone.

    Raises:
        HostError: not even SIGKILL ended it in time.
    """
    with _held(pid, argument) as descriptor:
        if descriptor is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, number)
            if _wait(descriptor, timeout_s):
                return
    raise HostError(what=f"Ending process {pid}", reason="it does not go")


@contextmanager
def _held(pid: int, argument: str) -> Iterator[int | None]:
    """A handle that means this process even when its number is given to another one."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        yield None
        return
    try:
        yield descriptor if runs(pid, argument) else None
    finally:
        os.close(descriptor)


def _wait(descriptor: int, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))


def _arguments(pid: int) -> list[str]:
    try:
        return (_PROC / str(pid) / "cmdline").read_text(errors="replace").split("\0")[:-1]
    except OSError:
        return []
