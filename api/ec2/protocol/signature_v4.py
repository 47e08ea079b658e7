"""AWS Signature Version 4, in the Authorization header or presigned in the query string.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
Region and service of the scope are the client's choice: euca2ools and boto 2 guess them from the host name.
"""

import hashlib
import hmac
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import quote

from api.ec2.protocol.signed_request import (
    BytePair,
    SignedRequest,
    check_ascii,
    check_equal,
    check_window,
    encode_pair,
    named_once,
)
from controller.domain.errors import AuthenticationFailed, SignatureDoesNotMatch

ALGORITHM = "AWS4-HMAC-SHA256"
_STAMP = "%Y%m%dT%H%M%SZ"
_UNSIGNED = "UNSIGNED-PAYLOAD"
_MAX_EXPIRES_S = 7 * 24 * 3600
_PARTS = frozenset({"Credential", "SignedHeaders", "Signature"})
_HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")
_STAMP_FORM = re.compile(r"[0-9]{8}T[0-9]{6}Z")


@dataclass(frozen=True)
class Claim:
    """What a request says of itself; ``expires_s`` only when it is presigned."""

    access_key: str
    scope: tuple[str, str, str]
    signed_headers: tuple[str, ...]
    signature: str
    expires_s: int | None = None


def is_header_signed(request: SignedRequest) -> bool:
    """Whether the Authorization header is of this algorithm."""
    return (request.header("authorization") or "").partition(" ")[0] == ALGORITHM


def is_presigned(request: SignedRequest) -> bool:
    """Whether the query string names a SigV4 algorithm or carries a signature."""
    return any(name in (b"X-Amz-Algorithm", b"X-Amz-Signature") for name, _ in request.query_pairs())


def claim(request: SignedRequest) -> Claim:
    """Who the request says it is from.

    Raises:
        AuthenticationFailed: a part of the signature is missing, doubled or not understood.
    """
    return _presigned_claim(request) if is_presigned(request) else _header_claim(request)


def verify(request: SignedRequest, secret: str, now: datetime, window_s: int) -> None:
    """Raises: AuthenticationFailed, RequestExpired, SignatureDoesNotMatch: the request is not to be trusted."""
    check_ascii(request)
    claimed = claim(request)
    stamp = _stamp(request, presigned=claimed.expires_s is not None)
    if claimed.scope[0] != stamp[:8]:
        raise AuthenticationFailed(reason=f"the credential is for {claimed.scope[0]}, the request of {stamp}")
    signed_at = datetime.strptime(stamp, _STAMP).replace(tzinfo=UTC)
    check_window(signed_at, now, window_s, window_s if claimed.expires_s is None else claimed.expires_s)
    payload = _payload_hash(request)
    headers = _canonical_headers(request, claimed.signed_headers)
    key = _signing_key(secret, claimed.scope)
    expected = ""
    for query in _canonical_queries(request):
        canonical = "\n".join((
            request.method.upper(), _canonical_path(request.path), query, headers,
            ";".join(claimed.signed_headers), payload,
        ))  # fmt: skip
        digest = hashlib.sha256(canonical.encode(errors="surrogatepass")).hexdigest()
        to_sign = "\n".join((ALGORITHM, stamp, "/".join((*claimed.scope, "aws4_request")), digest))
        expected = hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
        if hmac.compare_digest(claimed.signature, expected):
            return
    check_equal(claimed.signature, expected)


# --- what the request claims -----------------------------------------------------------------------------


def _header_claim(request: SignedRequest) -> Claim:
    _, _, rest = (request.header("authorization") or "").partition(" ")
    parts: dict[str, str] = {}
    for part in rest.split(","):
        name, equals, value = part.strip().partition("=")
        if name not in _PARTS or not equals or name in parts:
            raise AuthenticationFailed(
                reason="the Authorization header has to have Credential, SignedHeaders and Signature, once each"
            )
        parts[name] = value
    if missing := _PARTS - parts.keys():
        raise AuthenticationFailed(reason=f"the Authorization header lacks {', '.join(sorted(missing))}")
    return _claim(parts["Credential"], parts["SignedHeaders"], parts["Signature"], None)


def _presigned_claim(request: SignedRequest) -> Claim:
    pairs = request.query_pairs()

    def part(name: str) -> str:
        value = named_once(pairs, f"X-Amz-{name}")
        if not value:
            raise AuthenticationFailed(reason=f"the query string lacks X-Amz-{name}")
        return value

    if part("Algorithm") != ALGORITHM:
        raise AuthenticationFailed(reason=f"X-Amz-Algorithm has to be {ALGORITHM}")
    expires = part("Expires")
    if not re.fullmatch("[0-9]{1,6}", expires) or not 1 <= int(expires) <= _MAX_EXPIRES_S:
        raise AuthenticationFailed(reason=f"X-Amz-Expires has to be from 1 to {_MAX_EXPIRES_S} seconds")
    return _claim(part("Credential"), part("SignedHeaders"), part("Signature"), int(expires))


def _claim(credential: str, signed_headers: str, signature: str, expires_s: int | None) -> Claim:
    pieces = credential.rsplit("/", 4)
    if len(pieces) != 5 or not pieces[0] or pieces[4] != "aws4_request":
        raise AuthenticationFailed(reason="the credential has to be KEY/DATE/REGION/SERVICE/aws4_request")
    names = tuple(signed_headers.split(";"))
    if list(names) != sorted(set(names)) or not all(_HEADER_NAME.fullmatch(name) for name in names):
        raise AuthenticationFailed(reason="SignedHeaders has to be lower-case names, sorted, once each")
    if "host" not in names:
        raise AuthenticationFailed(reason="the Host header has to be signed")
    if not re.fullmatch("[0-9a-f]{64}", signature):
        raise AuthenticationFailed(reason="the signature has to be 64 hexadecimal digits in lower case")
    if not "".join(pieces).isascii():
        raise AuthenticationFailed(reason="the credential is not ASCII")
    return Claim(pieces[0], (pieces[1], pieces[2], pieces[3]), names, signature, expires_s)


def _stamp(request: SignedRequest, *, presigned: bool) -> str:
    """The moment of signing in the basic form, from X-Amz-Date, or else from Date."""
    if presigned:
        text = named_once(request.query_pairs(), "X-Amz-Date")
    else:
        text = request.header("x-amz-date") or request.header("date")
    if not text:
        raise AuthenticationFailed(reason="the request has no X-Amz-Date")
    try:
        if _STAMP_FORM.fullmatch(text):
            datetime.strptime(text, _STAMP).replace(tzinfo=UTC)
            return text
        moment = parsedate_to_datetime(text)
        return (moment.astimezone(UTC) if moment.tzinfo else moment).strftime(_STAMP)
    except (ValueError, TypeError, IndexError, OverflowError) as error:
        raise AuthenticationFailed(reason="X-Amz-Date has to be in the form 20260102T030405Z") from error


# --- the canonical request -------------------------------------------------------------------------------


def _payload_hash(request: SignedRequest) -> str:
    """The last line of the canonical request; a hash that the client states has to be the body's.

    Only the client itself can leave its body unsigned: the word is signed in place of the hash.
    """
    digest = hashlib.sha256(request.body).hexdigest()
    stated = request.header("x-amz-content-sha256")
    if stated is None or stated == digest:
        return digest
    if stated == _UNSIGNED:
        return _UNSIGNED
    raise SignatureDoesNotMatch(reason="X-Amz-Content-SHA256 is not the SHA-256 of the body")


def _canonical_path(path: str) -> str:
    """Dot segments and double slashes removed, then encoded once more: every service but S3 signs it so."""
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    tail = "/" if path.endswith("/") and kept else ""
    return quote(f"/{'/'.join(kept)}{tail}", safe="/-_.~")


def _canonical_queries(request: SignedRequest) -> Iterator[str]:
    """The sorted query, encoded anew as the specification has it; then as sent, as botocore signs a URL."""
    signed: list[BytePair] = [pair for pair in request.query_pairs() if pair[0] != b"X-Amz-Signature"]
    # Sorted by the encoded name and then the encoded value; "=" must take no part in the order.
    encoded = sorted(encode_pair(pair).split("=") for pair in signed)
    yield "&".join("=".join(pair) for pair in encoded)
    raw = (part.partition("=") for part in request.query_string.split("&") if part)
    sent = sorted((name, value) for name, _, value in raw if name != "X-Amz-Signature")
    yield "&".join(f"{name}={value}" for name, value in sent)


def _canonical_headers(request: SignedRequest, names: tuple[str, ...]) -> str:
    lines = []
    for name in names:
        value = request.header(name)
        if value is None:
            raise AuthenticationFailed(reason=f"the header {name} is signed, but was not sent")
        lines.append(f"{name}:{value}\n")
    return "".join(lines)


def _signing_key(secret: str, scope: tuple[str, str, str]) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (*scope, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key
