"""The name and value pairs of a request, from its query string and its form, and the action they name.

Both are read whatever the Content-Type says, because both are what is signed.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from api.ec2.protocol.errors import MalformedQueryString, MissingAction, RequestEntityTooLarge
from api.ec2.protocol.model import API_VERSION

Pairs = tuple[tuple[str, str], ...]
MAX_BYTES = 1024 * 1024
MAX_PAIRS = 2000
_VERSION = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


@dataclass(frozen=True)
class Call:
    """What is asked: the action by name (not checked), the API version to echo, and all pairs as they came."""

    action: str
    version: str
    pairs: Pairs


def read_call(query_string: str, body: bytes = b"") -> Call:
    """The call that a request makes; a version that is not a date, or none, becomes the newest.

    Raises:
        MissingAction: no Action, or an empty one.
        MalformedQueryString, RequestEntityTooLarge: see ``read_pairs``.
    """
    pairs = read_pairs(query_string, body)
    action = _only(pairs, "Action")
    if not action:
        raise MissingAction
    version = _only(pairs, "Version") or ""
    return Call(action, version if _VERSION.fullmatch(version) else API_VERSION, pairs)


def read_pairs(query_string: str, body: bytes = b"", *, max_pairs: int = MAX_PAIRS) -> Pairs:
    """The pairs of the raw query string, then those of the form; ``+`` is a space.

    Raises:
        MalformedQueryString: not percent-encoded UTF-8.
        RequestEntityTooLarge: more than ``MAX_BYTES`` or ``max_pairs``.
    """
    if len(query_string) + len(body) > MAX_BYTES:
        raise RequestEntityTooLarge(reason=f"at most {MAX_BYTES} bytes are accepted")
    if not query_string.isascii():
        raise MalformedQueryString(reason="what is not ASCII has to be percent-encoded")
    raw = [part for part in (*query_string.encode().split(b"&"), *body.strip().split(b"&")) if part]
    if len(raw) > max_pairs:
        raise RequestEntityTooLarge(reason=f"at most {max_pairs} parameters are accepted")
    try:
        return tuple(_pair(part) for part in raw)
    except UnicodeDecodeError as error:
        raise MalformedQueryString(reason="it is not UTF-8") from error


def _pair(part: bytes) -> tuple[str, str]:
    name, _, value = part.replace(b"+", b" ").partition(b"=")
    return unquote_to_bytes(name).decode(), unquote_to_bytes(value).decode()


def _only(pairs: Iterable[tuple[str, str]], name: str) -> str | None:
    found = {value for key, value in pairs if key == name}
    if len(found) > 1:
        raise MalformedQueryString(reason=f"{name} is given more than once")
    return found.pop() if found else None
