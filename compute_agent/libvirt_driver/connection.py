"""Connections to libvirt: opened when they are wanted, watched, opened again when they broke."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import libvirt
import structlog

from compute_agent.errors import HypervisorUnreachable
from compute_agent.libvirt_driver.connect import open_connection
from controller.domain.errors import DriverError

log = structlog.get_logger(__name__)

# A daemon that hangs counts as gone after interval x count seconds; every call on it then fails.
_KEEPALIVE_INTERVAL_S, _KEEPALIVE_COUNT = 5, 6
_HINTS = {
    libvirt.VIR_ERR_NO_MEMORY: "the host has no memory left",
    libvirt.VIR_ERR_OPERATION_DENIED: "the agent must run as root",
    libvirt.VIR_ERR_AUTH_FAILED: "the agent must run as root",
}


class _EventLoop:
    """libvirt's event loop: keepalive needs one, and it must be there before the first connection."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def ensure(self) -> None:
        with self._lock:
            if self._thread is None:
                # Errors come as exceptions; without this libvirt also prints each on stderr.
                libvirt.registerErrorHandler(lambda _context, _error: None, None)
                libvirt.virEventRegisterDefaultImpl()
                thread = threading.Thread(target=self._run, name="libvirt-events", daemon=True)
                thread.start()
                self._thread = thread

    def _run(self) -> None:
        while True:
            try:
                libvirt.virEventRunDefaultImpl()
            except libvirt.libvirtError as error:
                log.warning("libvirt event loop", reason=str(error))


_EVENTS = _EventLoop()


def answers(uri: str) -> bool:
    """Whether a libvirt daemon answers there."""
    _EVENTS.ensure()
    try:
        _close(open_connection(uri))
    except HypervisorUnreachable:
        return False
    return True


class Connections:
    """Gives each user a connection of its own; safe to use from many threads.

    Not one for all: while a call waits for a slow guest, libvirt's client (9.0) sees the answers to the other calls on
    the same connection only at the next keepalive, seconds late; a heartbeat must not wait for a guest. There are as
    many as were in use at once.
    """

    def __init__(self, uri: str, revive: Callable[[], None]) -> None:
        """``revive`` is called before each attempt to connect: it may start the daemon."""
        self._uri = uri
        self._revive = revive
        self._lock = threading.Lock()
        self._free: list[libvirt.virConnect] = []

    @contextmanager
    def use(self, what: str) -> Iterator["libvirt.virConnect"]:
        """A connection for some calls; ``what`` names them in an error: "Starting the guest".

        Raises:
            HypervisorUnreachable: no connection, or it broke meanwhile. DriverError: libvirt refused.
        """
        connection = self._take()
        try:
            yield connection
        except libvirt.libvirtError as error:
            raise self._translate(connection, what, error) from error
        finally:
            with self._lock:
                self._free.append(connection)

    def close(self) -> None:
        """Close the connections that are not in use; the next use opens another."""
        with self._lock:
            free, self._free = self._free, []
        for connection in free:
            _close(connection)

    def _take(self) -> "libvirt.virConnect":
        while True:
            with self._lock:
                connection = self._free.pop() if self._free else None
            if connection is None:
                return self._open()
            if _responds(connection):
                return connection
            _close(connection)

    def _open(self) -> "libvirt.virConnect":
        _EVENTS.ensure()
        self._revive()
        connection = open_connection(self._uri)
        with suppress(libvirt.libvirtError):  # drivers inside the client, as test:///, have no keepalive
            connection.setKeepAlive(_KEEPALIVE_INTERVAL_S, _KEEPALIVE_COUNT)
        return connection

    def _translate(self, connection: "libvirt.virConnect", what: str, error: "libvirt.libvirtError") -> DriverError:
        code = error.get_error_code()
        reason = str(error).rstrip(".")
        if error.get_error_domain() == libvirt.VIR_FROM_RPC or not _responds(connection):
            return HypervisorUnreachable(what=what, reason=f"libvirt went away: {reason}")
        hint = _HINTS.get(code)
        return DriverError(what=what, reason=f"{reason} ({hint})" if hint else reason)


def _close(connection: "libvirt.virConnect") -> None:
    with suppress(libvirt.libvirtError):
        connection.close()


def _responds(connection: "libvirt.virConnect") -> bool:
    """Whether the daemon is there: a broken connection counts as alive until something was asked of it."""
    try:
        connection.getLibVersion()
        return bool(connection.isAlive())
    except libvirt.libvirtError:
        return False
