"""Connecting to libvirt within a time: its own call waits for a daemon that hangs as long as that one hangs."""

import threading
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import TypeAlias

import libvirt

from compute_agent.errors import HypervisorUnreachable

OPEN_S = 60.0
_Attempt: TypeAlias = "Future[libvirt.virConnect]"
# Attempts that timed out. No further one is made while one of them hangs, so threads do not pile up.
_hanging: dict[str, _Attempt] = {}


def open_connection(uri: str) -> "libvirt.virConnect":
    """A connection to the daemon there.

    Raises:
        HypervisorUnreachable: there is none, or it does not answer in time.
    """
    try:
        return _open(uri)
    except TimeoutError as error:
        raise _unreachable(uri, f"not within {OPEN_S:g} s") from error
    except (libvirt.libvirtError, RuntimeError) as error:  # RuntimeError: the host has no thread to give
        raise _unreachable(uri, str(error)) from error


def _open(uri: str) -> "libvirt.virConnect":
    before = _hanging.get(uri)
    if before is not None and wait([before], OPEN_S).not_done:
        raise TimeoutError
    attempt: _Attempt = Future()
    threading.Thread(target=_try, args=(uri, attempt), name="libvirt-open", daemon=True).start()
    try:
        return attempt.result(OPEN_S)
    except TimeoutError:
        _hanging[uri] = attempt
        attempt.add_done_callback(_close)  # at once, if it has come in this very moment
        raise


def _try(uri: str, attempt: _Attempt) -> None:
    try:
        attempt.set_result(libvirt.open(uri))
    except libvirt.libvirtError as error:
        attempt.set_exception(error)


def _close(attempt: _Attempt) -> None:
    if attempt.exception() is None:
        with suppress(libvirt.libvirtError):
            attempt.result().close()


def _unreachable(uri: str, reason: str) -> HypervisorUnreachable:
    return HypervisorUnreachable(what="Connecting to libvirt", reason=f"no answer at {uri}: {reason}")
