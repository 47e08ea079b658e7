"""A light EC2 client for load: signs and sends, as boto3 does, for a fraction of its CPU.

The signature is version 4 (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html).
"""

import hashlib
import hmac
import http.client
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import urlencode, urlsplit

_ID = re.compile(rb"<instanceId>(i-[0-9a-f]{17})</instanceId>")


class RequestFailed(Exception):
    """An answer other than 200."""


class Ec2Client:
    """One connection that is kept; for one thread."""

    def __init__(self, url: str, key: str, secret: str, region: str = "pileus") -> None:
        self._host = urlsplit(url).netloc
        self._key, self._secret, self._region = key, secret, region
        self._connection = http.client.HTTPConnection(self._host, timeout=300)

    def call(self, action: str, parameters: Mapping[str, str | int]) -> bytes:
        """The answer to an action, as XML. Raises RequestFailed."""
        body = urlencode({"Action": action, "Version": "2016-11-15", **parameters}).encode()
        self._connection.request("POST", "/", body, self._headers(body))
        response = self._connection.getresponse()
        text = response.read()
        if response.status != 200:
            raise RequestFailed(f"{response.status}: {text[:500].decode(errors='replace')}")
        return text

    def run(self, count: int, **parameters: str) -> list[str]:
        """RunInstances; answers with the ids."""
        answer = self.call("RunInstances", {"MinCount": count, "MaxCount": count, **parameters})
        return [i.decode() for i in _ID.findall(answer)]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _headers(self, body: bytes) -> dict[str, str]:
        now = datetime.now(UTC)
        stamp, day = f"{now:%Y%m%dT%H%M%SZ}", f"{now:%Y%m%d}"
        kind = "application/x-www-form-urlencoded; charset=utf-8"
        signed = "content-type;host;x-amz-date"
        canonical = (
            f"POST\n/\n\ncontent-type:{kind}\nhost:{self._host}\nx-amz-date:{stamp}\n\n{signed}\n"
            f"{hashlib.sha256(body).hexdigest()}"
        )
        scope = f"{day}/{self._region}/ec2/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        key = f"AWS4{self._secret}".encode()
        for part in (day, self._region, "ec2", "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        return {
            "Content-Type": kind,
            "X-Amz-Date": stamp,
            "Authorization": f"AWS4-HMAC-SHA256 Credential={self._key}/{scope}, SignedHeaders={signed}, "
            f"Signature={signature}",
        }
