"""Requests signed by botocore's own signers, as they would come over the wire."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from urllib.parse import urlencode, urlsplit

from botocore.auth import SigV2Auth, SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from api.ec2.protocol.signature import SignedRequest

KEY, SECRET = "AKIAABCDEFGHIJKLMNOP", "abc/def+ghi"
CREDENTIALS = Credentials(KEY, SECRET)
FORM = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}


def now() -> datetime:
    return datetime.now(UTC)


def v4(
    form: Mapping[str, str] | Sequence[tuple[str, str]] = (),
    *,
    url: str = "http://Cloud.example:8773/ec2/",
    headers: Mapping[str, str] | None = None,
    region: str = "us-east-1",
) -> SignedRequest:
    """A form, or a GET when there is none, signed in the header."""
    method = "POST" if form else "GET"
    request = AWSRequest(method, url, dict(headers or FORM), data=urlencode(form) if form else b"")
    SigV4Auth(CREDENTIALS, "ec2", region).add_auth(request)
    return wire(request)


def presigned(params: Mapping[str, str], *, url: str = "http://cloud.example/", expires: int = 60) -> SignedRequest:
    request = AWSRequest("GET", url, params=dict(params))
    SigV4QueryAuth(CREDENTIALS, "ec2", "us-east-1", expires=expires).add_auth(request)
    return wire(request)


def v2(params: Mapping[str, str], *, method: str = "POST", url: str = "http://cloud.example:8773/") -> SignedRequest:
    inside = {"data": dict(params)} if method == "POST" else {"params": dict(params)}
    request = AWSRequest(method, url, dict(FORM), **inside)
    SigV2Auth(CREDENTIALS).add_auth(request)
    return wire(request)


def wire(request: AWSRequest) -> SignedRequest:
    sent = request.prepare()
    url = urlsplit(sent.url)
    headers = {
        name.lower(): value.decode() if isinstance(value, bytes) else value for name, value in sent.headers.items()
    }
    body = sent.body or b""
    return SignedRequest(
        method=sent.method,
        path=url.path,
        query_string=url.query,
        headers={"host": url.netloc.lower(), **headers},
        body=body.encode() if isinstance(body, str) else body,
    )
