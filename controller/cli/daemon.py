"""The all-in-one cloud as a process in the background: started, found again and ended without mistaking another's."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from controller.domain.errors import Conflict, Unavailable
from controller.locks import lock, try_lock

STOP_TIMEOUT_S = 45.0
_LOCK_TIMEOUT_S = 180.0
_TAIL_BYTES = 4000
_READY = "ready"


class Daemon:
    """The process that holds the lock on ``<state>/run/pileus.pid``. The lock, not the number, says that it lives."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self.pid_file = state_dir / "run" / "pileus.pid"
        self.log_file = state_dir / "log" / "pileus.log"

    def pid(self) -> int | None:
        """The process id, None when it does not run."""
        try:
            with self.pid_file.open() as file:
                if not try_lock(file, shared=True):
                    return int(file.readline().strip() or 0) or None
        except (OSError, ValueError):
            return None
        return None

    @property
    def is_ready(self) -> bool:
        """Whether it runs, and all its services have started."""
        return self.pid() is not None and self.pid_file.read_text().endswith(f"{_READY}\n")

    @contextmanager
    def held(self) -> Iterator[Callable[[], None]]:
        """Be that process until the block ends, which is given a function to say that all has started.

        Raises:
            Conflict: another process is.
        """
        self.pid_file.parent.mkdir(parents=True, exist_ok=True)
        with self.pid_file.open("a+") as file:
            if not lock(file, 2.0):
                raise Conflict(reason=f"the cloud below {self._state_dir} is running already, as process {self.pid()}")
            file.truncate(0)

            def say(line: object) -> None:
                file.write(f"{line}\n")
                file.flush()

            say(os.getpid())
            yield lambda: say(_READY)
            file.truncate(0)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One `up` or `down` at a time. Raises Conflict."""
        folder = self.pid_file.parent
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "up.lock").open("w") as file:
            if not lock(file, _LOCK_TIMEOUT_S):
                raise Conflict(reason="another `pileus up` or `pileus down` is still at work")
            yield

    def start(self, arguments: Sequence[str]) -> "subprocess.Popen[bytes]":
        """Start ``pileus ARGUMENTS`` in a session of its own; it outlives this process."""
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        # -P: modules in the current folder are not imported.
        argv = [sys.executable, "-P", "-m", "controller.cli.main", *arguments]
        with self.log_file.open("ab") as output:
            return subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/", start_new_session=True
            )

    def stop(self) -> int | None:
        """End it: SIGTERM, and SIGKILL when its time is over. Answers with its pid, None when it did not run.

        Raises:
            Unavailable: even SIGKILL did not end it.
        """
        pid = self.pid()
        if pid is None:
            return None
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            return None
        try:
            # With the handle in hand the number cannot go to another process any more: look once again.
            if self.pid() != pid:
                return None
            for order, timeout_s in ((signal.SIGTERM, STOP_TIMEOUT_S), (signal.SIGKILL, 10.0)):
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, order)
                if select.select([handle], [], [], timeout_s)[0]:
                    return pid
        finally:
            os.close(handle)
        raise Unavailable(what=f"Process {pid}", reason="it cannot be killed")

    def log_tail(self) -> str:
        """The end of its log, from the last start on."""
        try:
            with self.log_file.open("rb") as file:
                file.seek(max(0, self.log_file.stat().st_size - _TAIL_BYTES))
                return file.read().decode(errors="replace")
        except OSError:
            return ""
