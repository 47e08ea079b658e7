"""Which MAC addresses this host may carry: a program of the site's own says it, or a file of a simulated site."""

import os
import selectors
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from compute_agent.errors import one_line
from controller.conf.settings import Compute
from controller.domain.errors import CloudError, CommandFailed, ConfigurationError, InvalidParameter
from controller.domain.host_facts import MAX_MACS, normal_macs
from controller.domain.messages import PROBE_PENDING

log = structlog.get_logger(__name__)

# What is read of a program's output at most: MAX_MACS lines with a comment each.
MAX_OUTPUT_BYTES = 1024 * 1024
_MAX_FILE_BYTES = 64 * 1024 * 1024
_ERROR_CHARS = 200
_STDERR_BYTES = 1000
_CHUNK = 65536
_POLL_S = 0.1

Stopping = Callable[[], bool]
# The MAC addresses by host; raises CloudError or OSError.
Ask = Callable[[Stopping], Mapping[str, tuple[str, ...]]]


@dataclass(frozen=True)
class MacReport:
    """What a heartbeat says: the last good list, and what was wrong with the last run."""

    macs: tuple[str, ...] | None = None
    error: str = ""


class MacProbe:
    """Remembers the last good answer. ``refresh`` is for a thread of its own, ``report`` for any."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._found: Mapping[str, tuple[str, ...]] | None = None
        self._error = PROBE_PENDING

    def refresh(self, stopping: Stopping = lambda: False) -> None:
        """Ask once more; an error is kept for the report."""
        try:
            self._found, error = self._ask(stopping), ""
        except (CloudError, OSError) as problem:
            error = one_line(problem, _ERROR_CHARS)
            if error != self._error:
                log.warning("MAC probe failed, the last good list stays", reason=error)
        self._error = error

    def report(self, host: str) -> MacReport:
        """What is known of a host."""
        found = self._found
        return MacReport(None if found is None else found.get(host, ()), self._error)


def make_probe(compute: Compute, host: str) -> MacProbe | None:
    """The probe that the settings name; None: there is none.

    Raises:
        ConfigurationError: the program's path is not absolute.
    """
    if compute.driver == "simulated":
        file = compute.simulated_macs_file
        return MacProbe(lambda _: macs_of_file(Path(file))) if file else None
    if not compute.mac_probe.strip():
        return None
    try:
        argv = shlex.split(compute.mac_probe)
    except ValueError as error:
        raise ConfigurationError(reason=f"[compute] mac_probe: {error}") from error
    if not Path(argv[0]).is_absolute():
        raise ConfigurationError(reason=f"[compute] mac_probe: the path of {argv[0]!r} is not absolute")
    timeout_s = compute.mac_probe_timeout_s
    return MacProbe(lambda stopping: {host: macs_of_program(argv, timeout_s, stopping)})


def macs_of_program(argv: Sequence[str], timeout_s: float, stopping: Stopping = lambda: False) -> tuple[str, ...]:
    """What a program prints: one MAC address a line, ``#`` begins a comment.

    Raises:
        CommandFailed: it could not be run, did not end in time, failed, or printed something else.
    """
    output = _output(argv, time.monotonic() + timeout_s, timeout_s, stopping)
    try:
        return normal_macs(output.decode("ascii", "replace").splitlines())
    except InvalidParameter as error:
        raise CommandFailed(program=argv[0], status=0, stderr=f"bad output: {error}".rstrip(".")) from error


def macs_of_file(path: Path) -> Mapping[str, tuple[str, ...]]:
    """What a file says, in lines ``HOST MAC``.

    Raises:
        ConfigurationError: a line that is something else. OSError: it cannot be read.
    """
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise ConfigurationError(reason=f"{path} has more than {_MAX_FILE_BYTES} bytes")
    lines: dict[str, list[str]] = {}
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        words = line.partition("#")[0].split()
        if words and len(words) != 2:
            raise ConfigurationError(reason=f"{path}, line {number}: a line is `HOST MAC`")
        if words:
            lines.setdefault(words[0], []).append(words[1])
    try:
        return {host: normal_macs(macs) for host, macs in lines.items()}
    except InvalidParameter as error:
        raise ConfigurationError(reason=f"{path}: {error}".rstrip(".")) from error


def _output(argv: Sequence[str], deadline: float, timeout_s: float, stopping: Stopping) -> bytes:
    """Not by ``controller.programs.run``: what the program left running is ended too, and its output is bounded."""
    environment = {**os.environ, "LC_ALL": "C"}
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(
            list(argv), stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, start_new_session=True, env=environment
        )
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CommandFailed(program=argv[0], status="none", stderr=reason) from error
    try:
        output, errors = _read(process, argv[0], deadline, stopping)
        process.wait(max(0.0, deadline - time.monotonic()))
    except (TimeoutError, subprocess.TimeoutExpired) as error:
        raise CommandFailed(program=argv[0], status="none", stderr=f"killed after {timeout_s:g} s") from error
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        with process:  # closes the pipes and waits for it
            pass
    if process.returncode != 0:
        text = " ".join(errors.decode(errors="replace").split())[-_ERROR_CHARS:]
        raise CommandFailed(program=argv[0], status=process.returncode, stderr=text or "no message")
    return output


def _read(process: "subprocess.Popen[bytes]", program: str, deadline: float, stopping: Stopping) -> tuple[bytes, bytes]:
    """Standard output and the end of standard error. Raises TimeoutError, CommandFailed."""
    assert process.stdout is not None
    assert process.stderr is not None
    output, errors = b"", b""
    with selectors.DefaultSelector() as selector:
        for stream in (process.stdout, process.stderr):
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            if time.monotonic() >= deadline or stopping():
                raise TimeoutError
            for key, _ in selector.select(_POLL_S):
                chunk = os.read(key.fd, _CHUNK)
                if not chunk:
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stderr:
                    errors = (errors + chunk)[-_STDERR_BYTES:]
                else:
                    output += chunk
            if len(output) > MAX_OUTPUT_BYTES:
                reason = f"it prints more than {MAX_OUTPUT_BYTES} bytes, for {MAX_MACS} MAC addresses at most"
                raise CommandFailed(program=program, status="none", stderr=reason)
    return output, errors
