"""A machine in namespaces: its own processes, mounts, network, host name and boot id; it can lose its power.

What runs on it ends with it, and its interfaces, firewall and mounts are gone: like a real machine's. Its files stay.
"""

import contextlib
import ctypes
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.labs.servers.guarded import Guarded, find_program

_CLONE_NEWNET = 0x40000000
_NAMESPACES = ["--net", "--mount", "--uts"]
# As init a program that reaps: what a killed daemon leaves behind has no other parent.
_BOOT = """
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount --bind "$1" /proc/sys/kernel/random/boot_id
hostname "$2"
ip link set lo up
touch "$3"
exec tini -s -- sleep infinity
"""


class Machine:
    """A context manager: the machine is on. ``folder`` is its console log's."""

    def __init__(self, folder: Path, *, name: str = "node") -> None:
        self.name = name
        self._folder = folder
        self._boot_id = folder / f"{name}.boot_id"
        self._power: Guarded | None = None

    @property
    def on(self) -> bool:
        return self._power is not None

    @property
    def pid(self) -> int:
        """Its first process, as seen from outside."""
        assert self._power, "the machine is off"
        return self._power.pid

    @property
    def prefix(self) -> list[str]:
        """Put before a command to run it on the machine."""
        return ["nsenter", f"--target={self.pid}", "--pid", *_NAMESPACES, "--"]

    @property
    def root(self) -> Path:
        """The machine's file system as its processes see it."""
        return Path(f"/proc/{self.pid}/root")

    def power_on(self) -> None:
        """Boot: with a boot id of its own, and nothing of what ran before."""
        find_program("tini", package="tini")
        self._boot_id.write_text(f"{uuid.uuid4()}\n")
        booted = self._folder / f"{self.name}.booted"
        booted.unlink(missing_ok=True)
        argv = ["unshare", *_NAMESPACES, "--propagation", "private", "--", "sh", "-euc", _BOOT, "boot"]
        argv += [str(self._boot_id), self.name, str(booted)]
        self._power = Guarded(argv, log=self._folder / f"{self.name}.log")
        self._power.wait_until(booted.exists, deadline_s=30, what=f"{self.name} did not boot")

    def power_off(self) -> None:
        """Take its power: every process of it is killed at once."""
        if self._power is not None:
            self._power.kill()
            self._power = None

    def run(self, *argv: str, timeout_s: float = 60) -> str:
        """Run a program on the machine; its standard output. Raises: AssertionError: it failed."""
        done = self.attempt(*argv, timeout_s=timeout_s)
        assert done.returncode == 0, f"{' '.join(argv)}: {done.stdout}{done.stderr}"
        return done.stdout

    def attempt(self, *argv: str, timeout_s: float = 60) -> "subprocess.CompletedProcess[str]":
        """Run a program on the machine, whether it succeeds or not."""
        argv = (*self.prefix, *argv)
        return subprocess.run(
            argv, capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL, cwd="/"
        )

    @contextlib.contextmanager
    def network(self) -> Iterator[None]:
        """This thread, and what it starts, is in the machine's network until the block ends."""
        # Thread by thread: /proc/self is the process's first one.
        with Path("/proc/thread-self/ns/net").open() as own, Path(f"/proc/{self.pid}/ns/net").open() as its:
            _enter(its.fileno())
            try:
                yield
            finally:
                _enter(own.fileno())

    def __enter__(self) -> Self:
        assert os.geteuid() == 0, "root is needed for namespaces, bridges and a firewall"
        self.power_on()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.power_off()


def _enter(descriptor: int) -> None:
    # os.setns comes with Python 3.12.
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
