"""Whether the parts of a cloud answer: its API, its database, its bus."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from sqlalchemy import text

from controller.bus.connection import BROKER_ERRORS, connect
from controller.conf.settings import Settings
from controller.domain.errors import CloudError
from controller.operations.cloud import Cloud

_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - compared, not bound to
# A proxy of the environment's is not on the way to this machine.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def local_api_url(settings: Settings) -> str:
    """Where the API of this machine answers, whatever name it has outside."""
    host = settings.api.listen_host
    return f"http://{_ANY_ADDRESS.get(host, host)}:{settings.api.listen_port}"


def api_problem(settings: Settings, timeout_s: float = 5.0) -> str:
    """Why ``/healthz`` does not answer 200; empty when it does."""
    url = f"{local_api_url(settings)}/healthz"
    try:
        with _OPENER.open(url, timeout=timeout_s) as answer:
            return "" if answer.status == 200 else f"{url} answers {answer.status}"
    except urllib.error.HTTPError as error:
        return f"{url} answers {error.code}: {_summary(error.read(500))}"
    except (OSError, ValueError) as error:
        return f"{url}: {getattr(error, 'reason', None) or error}"


def database_problem(cloud: Cloud) -> str:
    """Why the database does not answer; empty when it does."""
    try:
        cloud.read(lambda tx: tx.session.execute(text("SELECT 1")))
    except CloudError as error:
        return str(error)
    return ""


def bus_problem(settings: Settings) -> str:
    """Why the broker cannot be reached; empty when it can. The embedded bus lives and dies with the process."""
    if settings.embedded_bus:
        return ""
    try:
        with connect(settings) as connection:
            connection.ensure_connection(max_retries=1, timeout=settings.bus.publish_timeout_s)
    except BROKER_ERRORS as error:
        return str(error) or type(error).__name__
    return ""


def wait_for(problem: Callable[[], str], timeout_s: float, alive: Callable[[], bool] = lambda: True) -> str:
    """Ask until there is no problem; the last one when the time is over or no process is alive that could solve it."""
    deadline = time.monotonic() + timeout_s
    while found := problem():
        if time.monotonic() > deadline or not alive():
            return found
        time.sleep(0.1)
    return ""


def _summary(body: bytes) -> str:
    try:
        document: Any = json.loads(body)
    except ValueError:
        document = body.decode(errors="replace")
    return " ".join(str(document).split())[:200]
