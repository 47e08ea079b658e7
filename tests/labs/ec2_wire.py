"""Requests as other clients than boto3 send them, byte by byte."""

import http.client
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode, urlsplit

from botocore.auth import SigV2Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.labs.api_site import REGION, Site

FORM = "application/x-www-form-urlencoded"


def post(site: Site, form: Mapping[str, str] | bytes, path: str = "/", **headers: str) -> tuple[int, bytes]:
    """A form, signed by SigV4: the status and the document of the answer."""
    body = form if isinstance(form, bytes) else urlencode(form).encode()
    request = AWSRequest("POST", site.url + path, {"Content-Type": FORM, **headers}, data=body)
    SigV4Auth(_credentials(site), "ec2", REGION).add_auth(request)
    return send(site, request)


def get_v2(site: Site, params: Mapping[str, str], path: str = "/") -> tuple[int, bytes]:
    """Everything in the query string, signed by SigV2, as libcloud does."""
    request = AWSRequest("GET", site.url + path, {}, params=dict(params))
    SigV2Auth(_credentials(site)).add_auth(request)
    return send(site, request)


def get_v4(site: Site, params: Mapping[str, str], path: str = "/") -> tuple[int, bytes]:
    """Everything in the query string, signed by SigV4 in the header."""
    request = AWSRequest("GET", f"{site.url}{path}?{urlencode(params)}", {})
    SigV4Auth(_credentials(site), "ec2", REGION).add_auth(request)
    return send(site, request)


def send(site: Site, request: AWSRequest) -> tuple[int, bytes]:
    sent = request.prepare()
    url = urlsplit(sent.url)
    status, _, body = plain(site, sent.method, f"{url.path}?{url.query}", sent.body, dict(sent.headers.items()))
    return status, body


def plain(
    site: Site, method: str, path: str, body: Any = None, headers: Mapping[str, Any] | None = None
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """A request without any signature: status, headers and body of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", site.service.port, timeout=30)
    try:
        connection.request(method, path.removesuffix("?"), body, dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def _credentials(site: Site) -> Credentials:
    return Credentials(site.key, site.secret)
