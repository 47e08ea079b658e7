"""Runs a program of this machine: without a shell, with a deadline, in the C locale."""

import os
import signal
import subprocess
from collections.abc import Sequence

from controller.domain.errors import CommandFailed

_STDERR_CHARS = 500
# Debian keeps ip, nft and dnsmasq where a plain user's PATH does not look.
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def run(argv: Sequence[str], *, timeout_s: float = 30, stdin: str | None = None) -> str:
    """Run a program to its end and return its stdout; ``stdin`` is what it reads.

    Raises:
        CommandFailed: a non-zero status, no such program, or killed when ``timeout_s`` was over.
    """
    program = argv[0]
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=_environment(),
            start_new_session=True,
        )
    except OSError as error:
        raise CommandFailed(program=program, status="none", stderr=error.strerror or str(error)) from error
    with process:
        try:
            stdout, stderr = process.communicate(stdin or "", timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            # Its children too: one that holds the pipe would keep us waiting.
            os.killpg(process.pid, signal.SIGKILL)
            raise CommandFailed(program=program, status="none", stderr=f"killed after {timeout_s:g} s") from error
    if process.returncode != 0:
        text = " ".join((stderr or stdout).split())[-_STDERR_CHARS:]
        raise CommandFailed(program=program, status=process.returncode, stderr=text or "no message")
    return stdout


def _environment() -> dict[str, str]:
    inherited = os.environ.get("PATH", "")
    return {**os.environ, "LC_ALL": "C", "PATH": f"{inherited}:{_SYSTEM_PATH}" if inherited else _SYSTEM_PATH}
