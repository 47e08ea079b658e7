"""The one HTTP request of `pileus join`, with every way in which it can fail."""

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from controller.domain.errors import CloudError, ConfigurationError, InvalidParameter

_TIMEOUT_S = 30.0
_MAX_BYTES = 1024 * 1024
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class JoinRefused(CloudError):
    code = "join.refused"
    message = "{url} refuses: {reason}"


class JoinUnanswered(CloudError):
    code = "join.unanswered"
    message = "{url} does not answer as the API of a cloud: {reason}."
    retriable = True


@dataclass(frozen=True)
class Answer:
    """What the API says: see ``controller.operations.hosts.join.Joined``."""

    host: str
    renewed: bool
    cloud_id: str
    bus_url: str
    public_url: str
    zone: str
    network: Mapping[str, str]


def checked_url(url: str) -> str:
    """The URL of an API, without a slash at its end. Raises InvalidParameter."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment or parts.username is not None:
        reason = "it is the API's, as https://cloud.example:8773"
        raise InvalidParameter(parameter="URL", value=ascii(url[:100]).strip("'"), reason=reason)
    return url.rstrip("/")


def is_in_the_clear(url: str) -> bool:
    """Whether a third party on the way could read the token and the bus's password."""
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname not in _LOOPBACK


def send(url: str, document: Mapping[str, object], ca_file: Path | None = None) -> Answer:
    """Ask to join.

    Raises:
        JoinRefused: with the API's own reason. JoinUnanswered: no answer, or not one of Pileus.
    """
    target = f"{url}/v1/hosts/join"
    body = json.dumps(document).encode()
    request = urllib.request.Request(  # noqa: S310 - checked_url lets http and https through
        target, body, {"Content-Type": "application/json", "Accept": "application/json"}, method="POST"
    )
    # The site's own API: never by way of a proxy that the environment names.
    handlers = [urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=_tls(ca_file))]
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=_TIMEOUT_S) as answer:
            return _answer(target, answer.read(_MAX_BYTES))
    except urllib.error.HTTPError as error:
        raise _refusal(url, error) from error
    except (HTTPException, OSError) as error:
        raise JoinUnanswered(url=target, reason=getattr(error, "reason", None) or error) from error


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(reason=f"{ca_file} cannot be read as certificates: {error}") from error


def _answer(target: str, body: bytes) -> Answer:
    try:
        found: Any = json.loads(body)
        texts = {f: found[f] for f in ("host", "cloud_id", "bus_url", "public_url", "zone")}
        network = {str(k): v for k, v in found.get("network", {}).items()}
        if not all(isinstance(v, str) for v in (*texts.values(), *network.values())):
            raise TypeError
        return Answer(**texts, renewed=found.get("renewed") is True, network=network)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise JoinUnanswered(url=target, reason="its answer is something else") from error


def _refusal(url: str, error: urllib.error.HTTPError) -> CloudError:
    try:
        problem: Any = json.loads(error.read(_MAX_BYTES))
        detail = str(problem["detail"])
    except (OSError, HTTPException, ValueError, TypeError, KeyError):
        return JoinUnanswered(url=url, reason=f"status {error.code} {error.reason}")
    return JoinRefused(url=url, reason=" ".join(detail.split())[:500])
