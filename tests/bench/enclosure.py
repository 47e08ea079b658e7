"""A benchmark that makes bridges and guests runs enclosed: in network, mount and process namespaces of its own.

Whatever ends it, however hard, the kernel ends with it every process, interface and mount that it made.
"""

import os
import select
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

from tests.labs.servers.guarded import find_program

_INSIDE = "PILEUS_BENCH_ENCLOSED"
_STOP_S = 30
# sysfs shows the interfaces of the network namespace that it was mounted in.
_ENTER = 'mount -t sysfs sysfs /sys && ip link set lo up && exec "$@"'


def run(module: str, arguments: Sequence[str], folder: Path) -> str:
    """Run a module of Python enclosed, its working files below ``folder``; the last line of its standard output.

    Raises:
        RuntimeError: it failed; what it said is on standard error.
    """
    if os.geteuid() != 0:
        raise RuntimeError("root is needed for networks with guests")
    tini, unshare = find_program("tini", package="tini"), find_program("unshare", package="util-linux")
    argv = ["setpriv", "--pdeathsig=KILL", "--", unshare, "--net", "--mount", "--propagation=private"]
    argv += ["--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--", "sh", "-ec", _ENTER, "enclosed"]
    argv += [tini, "--", sys.executable, "-m", module, *arguments]
    environment = {**os.environ, _INSIDE: str(folder), "TMPDIR": str(folder)}
    folder.chmod(0o711)  # servers run as their own users
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        said, _ = process.communicate()
    finally:
        _end(process)
    if process.returncode:
        raise RuntimeError(f"{module} ended with status {process.returncode}")
    return said.strip().splitlines()[-1]


def folder() -> Path:
    """Where the enclosed benchmark keeps its working files."""
    return Path(os.environ[_INSIDE])


def _end(process: "subprocess.Popen[str]") -> None:
    """Kill what is left; returns when the whole namespace is empty, so that no process writes any more."""
    for child in psutil.Process(process.pid).children() if process.poll() is None else []:
        watched = os.pidfd_open(child.pid)
        child.kill()
        select.select([watched], [], [], _STOP_S)
        os.close(watched)
    process.wait(_STOP_S)
