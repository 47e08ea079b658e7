"""What answers and what does not."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from controller.cli.health import api_problem, bus_problem, local_api_url, wait_for
from controller.conf import Settings


class Handler(BaseHTTPRequestHandler):
    """Answers with the status of the class."""

    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(b'{"database": "gone"}')

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def settings() -> Iterator[Settings]:
    """Of a cloud whose API is the handler."""
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        default = Settings()
        yield replace(default, api=replace(default.api, listen_port=server.server_port))
        server.shutdown()
        thread.join()


def test_the_api(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert api_problem(settings) == ""
    monkeypatch.setattr(Handler, "status", 503)
    assert "503" in api_problem(settings)
    assert "gone" in api_problem(settings)


def test_a_closed_port(settings: Settings) -> None:
    nowhere = replace(settings, api=replace(settings.api, listen_port=1))
    assert "refused" in api_problem(nowhere)


def test_an_api_on_every_address_is_asked_on_this_machine(settings: Settings) -> None:
    wide = replace(settings, api=replace(settings.api, listen_host="0.0.0.0", listen_port=7))
    assert local_api_url(wide) == "http://127.0.0.1:7"


def test_a_broker_that_is_not_there(settings: Settings) -> None:
    assert bus_problem(settings) == ""
    lost = replace(settings, bus=replace(settings.bus, url="amqp://a:b@127.0.0.1:1//", publish_timeout_s=0.2))
    assert bus_problem(lost)


def test_waiting_ends_when_nothing_lives_any_more() -> None:
    assert wait_for(lambda: "no", 60, alive=lambda: False) == "no"
    assert wait_for(lambda: "no", 0) == "no"
    assert wait_for(lambda: "", 0) == ""
