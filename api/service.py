"""The API as a service: the application behind waitress, in threads of its own."""

import os
import socket
import threading
import time
from typing import Any

import structlog
from waitress import wasyncore
from waitress.server import create_server

from api.app import create_app
from api.ec2.protocol import model
from controller.conf.settings import Settings
from controller.domain.errors import ConfigurationError
from controller.health import thread_problem
from controller.needs import Needs
from controller.operations.cloud import Cloud
from controller.operations.images.pruning import prune
from controller.workers.periodic import Periodic

log = structlog.get_logger(__name__)
# Up to so many times [api] max_body_bytes is read, and then refused by the door in the caller's own language;
# what is larger still, waitress refuses by itself.
_READ_FACTOR = 4
_CONNECTIONS = 500
# A socket, and what waitress writes to files: a large body, a large answer.
_FILES_OF_A_CONNECTION = 3
# The socket that listens, and the two ends of waitress's trigger.
_OWN_FILES = 3
_IDLE_S = 60
_MAX_HEADER_BYTES = 65536
_STOP_S = 5.0
_PRUNE_EVERY_S = 600
_POLL_S = 0.5


class ApiService:
    """The doors of one process."""

    name = "api"
    needs_database = True

    @staticmethod
    def needs(settings: Settings) -> Needs:
        """Its connections, with files where a body or an answer is too large for memory; image files that are sent."""
        threads = settings.api.threads
        return Needs(database_threads=threads, files=_CONNECTIONS * _FILES_OF_A_CONNECTION + _OWN_FILES + threads)

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._stopping = threading.Event()
        self._sockets: dict[int, Any] = {}
        self._server: Any = None
        self._thread: threading.Thread | None = None
        self._pruning = Periodic("prune images", _PRUNE_EVERY_S, self.prune)

    def start(self) -> None:
        """Listen; what is asked from now on is answered.

        Raises:
            ConfigurationError: the address cannot be listened on.
        """
        conf = self._cloud.settings.api
        self._server = create_server(
            create_app(self._cloud),
            map=self._sockets,
            sockets=[_listen(conf.listen_host, conf.listen_port)],
            threads=conf.threads,
            ident=None,
            connection_limit=_CONNECTIONS,
            channel_timeout=_IDLE_S,
            max_request_header_size=_MAX_HEADER_BYTES,
            max_request_body_size=conf.max_body_bytes * _READ_FACTOR,
        )
        self._thread = threading.Thread(target=self._serve, name="api", daemon=True)
        self._thread.start()
        self._pruning.start()
        log.info("listening", host=conf.listen_host, port=self.port)

    def prune(self) -> None:
        """One round: files of the store that nothing needs. It lies with the API, which serves it."""
        writable = os.access(self._cloud.settings.image_store, os.W_OK)  # another machine's may be mounted to be read
        if writable and not self._cloud.clock_error_s():
            prune(self._cloud, after_s=self._cloud.settings.images.prune_after_s)

    @property
    def port(self) -> int:
        """The port that is listened on; of use where [api] listen_port is 0."""
        return int(self._server.effective_port)

    def stop(self) -> None:
        """Take no more connections, let what is under way end for a few seconds, close."""
        if self._thread is None:
            return
        self._stopping.set()
        self._pruning.stop(_STOP_S)
        self._server.pull_trigger()
        self._thread.join(timeout=_STOP_S + 3)
        if not self._thread.is_alive() and not self._server.task_dispatcher.threads:
            self._server.trigger.close()  # not before: a thread that still works on a request pulls it
        self._thread = None

    def problem(self) -> str:
        """Why no request is answered."""
        return thread_problem(self._thread, self._stopping.is_set())

    def destroy(self) -> None:
        """The API makes nothing on the machine."""

    def _serve(self) -> None:
        model.service()  # a few tenths of a second that the first caller shall not wait for
        while not self._stopping.is_set():
            self._turn()
        wasyncore.dispatcher.close(self._server)  # the listening socket alone: answers still need the trigger
        deadline = time.monotonic() + _STOP_S
        while self._is_busy() and time.monotonic() < deadline:
            self._turn()
        self._server.task_dispatcher.shutdown(timeout=1)
        for channel in list(self._server.active_channels.values()):
            channel.handle_close()

    def _turn(self) -> None:
        # poll(2), for select(2) ends at file 1023.
        wasyncore.loop(timeout=_POLL_S, use_poll=True, map=self._sockets, count=1)

    def _is_busy(self) -> bool:
        """Whether a request is worked on, or an answer not yet sent."""
        return any(
            getattr(c, "requests", None) or getattr(c, "total_outbufs_len", 0) for c in list(self._sockets.values())
        )


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket.

    Raises:
        ConfigurationError: the port is taken, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        reason = f"[api] listen_host, listen_port: {host}:{port} cannot be listened on: {error.strerror or error}"
        raise ConfigurationError(reason=reason) from error
