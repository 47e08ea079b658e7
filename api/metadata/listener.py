"""A waitress server that passes on the local address of a connection and can be stopped."""

import threading
from typing import Any

from flask import Flask
from waitress.channel import HTTPChannel
from waitress.server import create_server
from waitress.task import WSGITask

from api.metadata.app import LOCAL_ADDRESS
from controller.health import thread_problem

THREADS = 4
CONNECTIONS = 500
# The socket that listens, and the two ends of waitress's trigger.
OWN_FILES = 3
_MAX_BODY_BYTES = 4096
_TURN_S = 0.5


class _Task(WSGITask):  # type: ignore[misc]
    def get_environment(self) -> dict[str, Any]:
        """The request, and the address that the guest has reached."""
        environ: dict[str, Any] = super().get_environment()
        environ[LOCAL_ADDRESS] = self.channel.local_address
        return environ


class _Channel(HTTPChannel):  # type: ignore[misc]
    task_class = _Task

    def __init__(self, server: Any, sock: Any, *args: Any, **kwargs: Any) -> None:
        # After the redirect this is the gateway of the guest's network.
        self.local_address = sock.getsockname()[0]
        super().__init__(server, sock, *args, **kwargs)


class Listener:
    """Serves an application at one port of all addresses."""

    def __init__(self, app: Flask, port: int) -> None:
        """Bind the port. Raises: OSError: it is taken."""
        self._server = create_server(
            app,
            host="0.0.0.0",  # noqa: S104 - the firewall lets in what comes by the redirect
            port=port,
            threads=THREADS,
            ident="EC2ws",
            max_request_body_size=_MAX_BODY_BYTES,
            connection_limit=CONNECTIONS,
            channel_timeout=20,
            # The application refuses such requests: it must see the headers.
            clear_untrusted_proxy_headers=False,
        )
        self._server.channel_class = _Channel
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metadata", daemon=True)

    def start(self) -> None:
        """Begin in a thread of its own."""
        self._thread.start()

    def problem(self) -> str:
        """Why nothing is served."""
        return thread_problem(self._thread, self._stop.is_set())

    def stop(self, timeout_s: float = 5) -> None:
        """Finish what is under way and close the port."""
        self._stop.set()
        self._server.pull_trigger()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._server.asyncore.loop(timeout=_TURN_S, map=self._server._map, use_poll=True, count=1)
        self._server.task_dispatcher.shutdown(timeout=2)
        self._server.asyncore.close_all(self._server._map, ignore_all=True)
