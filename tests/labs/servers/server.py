"""What the private servers have in common."""

import contextlib
import os
import pwd
import random
import shutil
import socket
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.labs.servers.guarded import Guarded, ServerError, as_user

START_DEADLINE_S = 90


def free_ports(count: int) -> list[int]:
    """Different free loopback ports below the range the kernel takes outgoing ports from.

    So no other process gets one by chance while its server is being restarted.
    """
    found: list[int] = []
    chance = random.SystemRandom()
    while len(found) < count:
        port = chance.randrange(20000, 32000)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            if port not in found:
                found.append(port)
    return found


class Server(ABC):
    """A private server with data in a temporary folder; a context manager.

    It keeps its ports and its data over ``stop``, ``kill`` and ``start``; leaving the context removes the
    folder. When we are root it runs as ``user``, which comes with its package.
    """

    user: str
    package: str

    def __init__(self) -> None:
        self._guarded: Guarded | None = None
        self._ready = False
        name = type(self).__name__.lower()
        self.folder = Path(tempfile.mkdtemp(prefix=f"pileus-{name}-"))
        self.log = self.folder / "server.log"

    @property
    @abstractmethod
    def url(self) -> str:
        """Where to connect to."""

    @abstractmethod
    def _prepare(self) -> None:
        """Make the data folder; called once, before the first start."""

    @abstractmethod
    def _argv(self) -> Sequence[str]:
        """The server in the foreground."""

    def _environment(self) -> Mapping[str, str]:
        return {}

    @abstractmethod
    def _answers(self) -> None:
        """Talk to it like a client; any exception means: not yet."""

    @property
    def running(self) -> bool:
        return self._guarded is not None and self._guarded.running

    @property
    def pid(self) -> int:
        """The server's own process; its children are its workers."""
        if self._guarded is None:
            raise ServerError(f"{self.package} has not been started")
        return self._guarded.pid

    def start(self) -> None:
        """Start it and wait until it answers. A running one is left alone.

        Raises: ServerError: it does not; with the end of its log.
        """
        if self.running:
            return
        if not self._ready:
            self._give_folder()
            self._prepare()
            self._ready = True
        guarded = Guarded(
            [*as_user(self.user), *self._argv()], log=self.log, env=self._full_environment(), cwd=self.folder
        )
        self._guarded = guarded
        last_error = "no answer"

        def answers() -> bool:
            nonlocal last_error
            try:
                self._answers()
            except Exception as error:
                last_error = str(error)
                return False
            return True

        try:
            guarded.wait_until(answers, deadline_s=START_DEADLINE_S, what=f"no {self.package}")
        except ServerError as error:
            guarded.kill()
            raise ServerError(f"{error}\nlast try: {last_error}") from None

    def stop(self) -> None:
        """End it in order."""
        if self._guarded is not None:
            self._guarded.stop()

    def kill(self) -> None:
        """End it and all its processes at once, as a power cut does."""
        if self._guarded is not None:
            self._guarded.kill()

    def restart(self) -> None:
        self.stop()
        self.start()

    def _full_environment(self) -> dict[str, str]:
        path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
        # A MariaDB that starts removes the temporary tables of another one from a folder that both use.
        own = {"HOME": str(self.folder), "TMPDIR": str(self.folder)}
        return {"PATH": path, "LC_ALL": "C.UTF-8", **own, **self._environment()}

    def _give_folder(self) -> None:
        if os.geteuid() != 0:
            return
        try:
            account = pwd.getpwnam(self.user)
        except KeyError:
            raise ServerError(f"no user {self.user} on this machine: apt-get install {self.package}") from None
        os.chown(self.folder, account.pw_uid, account.pw_gid)

    def _run(self, *argv: str, timeout_s: float = 60) -> str:
        """Run one of the server's programs to its end; its standard output.

        Raises: ServerError: it failed.
        """
        done = subprocess.run(
            [*as_user(self.user), *argv],
            env=self._full_environment(),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        if done.returncode != 0:
            raise ServerError(f"{Path(argv[0]).name}: status {done.returncode}:\n{done.stdout}{done.stderr}")
        return done.stdout

    def _write(self, name: str, text: str) -> Path:
        """A file for the server, readable for it and root alone."""
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o600)
        if os.geteuid() == 0:
            shutil.chown(path, self.user)
        return path

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
