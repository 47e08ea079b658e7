"""The parts of a request that its signature is about, as they came over the wire."""

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import quote, unquote_to_bytes

from controller.domain.errors import AuthenticationFailed, RequestExpired, SignatureDoesNotMatch

BytePair = tuple[bytes, bytes]
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True)
class SignedRequest:
    """``path`` and ``query_string`` still percent-encoded; ``headers`` by lower-case names."""

    method: str
    path: str
    query_string: str
    headers: Mapping[str, str]
    body: bytes

    def header(self, name: str) -> str | None:
        """A header's value, white space trimmed and run together."""
        value = self.headers.get(name)
        return None if value is None else _SPACE.sub(" ", value.strip())

    @property
    def host(self) -> str:
        """The Host header, with the port if it names one.

        Raises:
            AuthenticationFailed: there is none.
        """
        host = self.header("host")
        if not host:
            raise AuthenticationFailed(reason="the request has no Host header")
        return host

    def query_pairs(self) -> list[BytePair]:
        """The decoded parameters of the query string, in their order."""
        return pairs_of(self.query_string.encode())


def check_ascii(request: SignedRequest) -> None:
    """Raises: AuthenticationFailed: a path or query that is not percent-encoded; it has no canonical form."""
    if not (request.path.isascii() and request.query_string.isascii()):
        raise AuthenticationFailed(reason="path and query string have to be percent-encoded")


def pairs_of(form: bytes) -> list[BytePair]:
    """The decoded parameters of a query string or a form; ``+`` is a space."""
    return [_decode(part) for part in form.split(b"&") if part]


def _decode(part: bytes) -> BytePair:
    name, _, value = part.replace(b"+", b" ").partition(b"=")
    return unquote_to_bytes(name), unquote_to_bytes(value)


def encode_pair(pair: BytePair) -> str:
    """``name=value``, all but RFC 3986's unreserved characters percent-encoded."""
    return f"{quote(pair[0], safe='-_.~')}={quote(pair[1], safe='-_.~')}"


def named_once(pairs: list[BytePair], name: str) -> str | None:
    """The value of a signature parameter.

    Raises:
        AuthenticationFailed: it is given twice, or is not ASCII.
    """
    found = [value for key, value in pairs if key == name.encode()]
    if len(found) > 1:
        raise AuthenticationFailed(reason=f"{name} is given more than once")
    if not found:
        return None
    if not found[0].isascii():
        raise AuthenticationFailed(reason=f"{name} is not ASCII")
    return found[0].decode()


def check_window(stamp: datetime, now: datetime, before_s: int, after_s: int) -> None:
    """Whether ``now`` is within a request's window around the moment that it was signed at.

    Raises:
        RequestExpired: it is not.
    """
    if not timedelta(seconds=-before_s) <= now - stamp <= timedelta(seconds=after_s):
        raise RequestExpired(
            reason=f"it was signed at {stamp:%Y-%m-%dT%H:%M:%SZ} and it is {now:%Y-%m-%dT%H:%M:%SZ} now; "
            f"it is accepted from {before_s} s before to {after_s} s after; check the clocks"
        )


def check_equal(given: str, expected: str) -> None:
    """Compare two signatures in constant time.

    Raises:
        SignatureDoesNotMatch: they differ.
    """
    if not hmac.compare_digest(given.encode(errors="replace"), expected.encode()):
        raise SignatureDoesNotMatch(
            reason="check the secret access key, and that no proxy changes the request on its way"
        )
