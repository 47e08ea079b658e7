"""Daemons that outlive the service that started them: found by pid file or command line, signalled only if still those.

psutil reads the command lines. Signals and waiting are by pidfd (pidfd_open(2)): a signal never reaches another process
that got the number meanwhile, and a process counts as gone once it has ended, even if pid 1 is slow to reap it; psutil
checks before it signals, and waits for the reaping.
"""

import errno
import os
import select
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from controller.domain.errors import HostError


def pid_in(file: Path) -> int | None:
    """The process id that a pid file names; None if there is none."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def runs(pid: int, argument: str) -> bool:
    """Whether this process lives and was started with exactly this argument.

    Raises:
        HostError: the machine does not say, as it has no descriptor to spare.
    """
    try:
        return argument in psutil.Process(pid).cmdline()
    except (psutil.Error, ValueError):  # ValueError: a pid file may hold any number
        return False
    except OSError as error:
        raise HostError(what=f"Looking at process {pid}", reason=str(error)) from error


def running(file: Path, argument: str) -> int | None:
    """The process that a pid file names, if it lives and was started with exactly this argument."""
    pid = pid_in(file)
    return pid if pid is not None and runs(pid, argument) else None


def started_with(program: str, prefix: str) -> dict[int, str]:
    """Every process of this program that has an argument with this beginning, and the argument.

    Raises:
        HostError: the machine does not say, as it has no descriptor to spare.
    """
    found = {}
    for process in psutil.process_iter():
        try:
            name, *arguments = process.cmdline() or [""]
        except psutil.Error:
            continue
        except OSError as error:
            raise HostError(what=f"Looking at process {process.pid}", reason=str(error)) from error
        matching = [a for a in arguments if a.startswith(prefix)]
        if matching and Path(name).name == Path(program).name:
            found[process.pid] = matching[0]
    return found


def hang_up(pid: int, argument: str) -> bool:
    """Send SIGHUP; False if the process is gone."""
    with _handle(pid, argument) as handle:
        if handle is None:
            return False
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGHUP)
            return True
        return False


def end(
    pid: int,
    argument: str,
    timeout_s: float = 5,
    signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGKILL),
) -> None:
    """End a process by these signals, ``timeout_s`` for each; returns once it is gone.

    Raises:
        HostError: it is still there after the last one, or cannot be signalled.
    """
    with _handle(pid, argument) as handle:
        if handle is None:
            return
        for number in signals:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, number)
            if _wait(handle, timeout_s):
                return
    raise HostError(what=f"Ending process {pid}", reason=f"it is still there {timeout_s:g} s after {number.name}")


@contextmanager
def _handle(pid: int, argument: str) -> Iterator[int | None]:
    """A handle that means this process even when its number is given to another one; None if it is gone.

    Raises:
        HostError: the machine gives no handle; whether the process is gone is not known then.
    """
    try:
        handle = os.pidfd_open(pid)
    except (ProcessLookupError, ValueError, OverflowError):
        yield None
        return
    except OSError as error:
        if error.errno == errno.EINVAL:  # no process can have this number
            yield None
            return
        raise HostError(what=f"Signalling process {pid}", reason=str(error)) from error
    try:
        yield handle if runs(pid, argument) else None
    finally:
        os.close(handle)


def _wait(handle: int, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000))
