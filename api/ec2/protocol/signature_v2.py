"""AWS Signature Version 2, of euca2ools up to 3.0, old boto and libcloud; parameters in the query or the form.

https://docs.aws.amazon.com/general/latest/gr/signature-version-2.html
"""

import base64
import hashlib
import hmac
from datetime import datetime

from api.ec2.protocol.signed_request import (
    BytePair,
    SignedRequest,
    check_ascii,
    check_equal,
    check_window,
    encode_pair,
    named_once,
    pairs_of,
)
from api.ec2.protocol.timestamps import parse_moment
from controller.domain.errors import AuthenticationFailed, RequestExpired

_METHODS = {"HmacSHA256": hashlib.sha256, "HmacSHA1": hashlib.sha1}
_MARKS = frozenset({b"AWSAccessKeyId", b"Signature"})


def is_signed(request: SignedRequest) -> bool:
    """Whether the parameters carry a signature of this version."""
    query = request.query_string.encode()
    if not any(mark in request.body or mark in query for mark in _MARKS):
        return False  # the usual case, without decoding a whole body
    return any(name in _MARKS for name, _ in _pairs(request))


def access_key(request: SignedRequest) -> str:
    """Who the request says it is from.

    Raises:
        AuthenticationFailed: it does not say so, or not clearly.
    """
    return _needed(_pairs(request), "AWSAccessKeyId")


def verify(request: SignedRequest, secret: str, now: datetime, window_s: int) -> None:
    """Raises: AuthenticationFailed, RequestExpired, SignatureDoesNotMatch: the request is not to be trusted."""
    check_ascii(request)
    pairs = _pairs(request)
    if _needed(pairs, "SignatureVersion") != "2":
        raise AuthenticationFailed(reason="SignatureVersion has to be 2")
    method = _METHODS.get(_needed(pairs, "SignatureMethod"))
    if method is None:
        raise AuthenticationFailed(reason=f"SignatureMethod has to be one of {', '.join(_METHODS)}")
    signature = _needed(pairs, "Signature")
    _check_clock(pairs, now, window_s)
    # Sorted by the bytes of the names as they are, not as they are encoded.
    query = "&".join(encode_pair(pair) for pair in sorted(pairs) if pair[0] != b"Signature")
    to_sign = "\n".join((request.method.upper(), request.host.lower(), request.path or "/", query))
    expected = base64.b64encode(hmac.new(secret.encode(), to_sign.encode(), method).digest()).decode()
    check_equal(signature, expected)


def _pairs(request: SignedRequest) -> list[BytePair]:
    return request.query_pairs() + pairs_of(request.body.strip())


def _needed(pairs: list[BytePair], name: str) -> str:
    value = named_once(pairs, name)
    if not value:
        raise AuthenticationFailed(reason=f"the request has no {name}")
    return value


def _check_clock(pairs: list[BytePair], now: datetime, window_s: int) -> None:
    stamp, expires = named_once(pairs, "Timestamp"), named_once(pairs, "Expires")
    if bool(stamp) == bool(expires):
        raise AuthenticationFailed(reason="the request has to have either Timestamp or Expires")
    try:
        moment = parse_moment(stamp or expires or "")
    except ValueError as error:
        raise AuthenticationFailed(
            reason="Timestamp and Expires have to be in the form 2026-01-02T03:04:05Z"
        ) from error
    if stamp:
        check_window(moment, now, window_s, window_s)
    elif moment <= now:
        raise RequestExpired(reason=f"it expired at {moment:%Y-%m-%dT%H:%M:%SZ}")
