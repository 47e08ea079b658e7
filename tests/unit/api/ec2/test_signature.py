import base64
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.ec2.protocol.signature import SignedRequest, claimed_key, verify
from controller.domain.errors import AuthenticationFailed, RequestExpired, SignatureDoesNotMatch
from tests.labs.ec2_signing import KEY, SECRET, now, presigned, v2, v4

Signer = Callable[[dict[str, str]], SignedRequest]
PARAMETERS = {"Action": "DescribeInstances", "Version": "2016-11-15", "Filter.1.Value.1": "a b+c&d=é/~*%"}
NAMES = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=8).filter(
    lambda name: not name.startswith(("X-Amz", "Signature", "Timestamp", "AWSAccess"))
)
# A parameter of such a name is a piece of the signature.
OWN = ("Expires", "Timestamp", "Signature", "SignatureMethod", "SignatureVersion", "AWSAccessKeyId", "X-Amz-")
FORMS = st.dictionaries(
    NAMES.filter(lambda name: not name.startswith(OWN)),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    min_size=1,
    max_size=6,
)


def accepted(request: SignedRequest, at: datetime | None = None) -> None:
    assert claimed_key(request) == KEY
    verify(request, SECRET, at or now(), 900)


def refused(request: SignedRequest, error: type[AuthenticationFailed] = AuthenticationFailed, **how: datetime) -> None:
    with pytest.raises(error) as caught:
        claimed_key(request)
        verify(request, SECRET, how.get("at", now()), 900)
    assert "None" not in str(caught.value)


def v2_signed(
    parameters: dict[str, str], *, method: str = "HmacSHA256", host: str = "cloud.example:8773"
) -> SignedRequest:
    """A GET signed by hand, as boto 2 and libcloud do it."""
    given = {"AWSAccessKeyId": KEY, "SignatureVersion": "2", "SignatureMethod": method, **parameters}
    query = "&".join(f"{quote(k, safe='-_.~')}={quote(v, safe='-_.~')}" for k, v in sorted(given.items()))
    digest = {"HmacSHA256": hashlib.sha256, "HmacSHA1": hashlib.sha1}.get(method, hashlib.sha256)
    signature = hmac.new(SECRET.encode(), f"GET\n{host.lower()}\n/\n{query}".encode(), digest).digest()
    query += "&Signature=" + quote(base64.b64encode(signature), safe="")
    return SignedRequest("GET", "", query, {"host": host}, b"")


def with_header(request: SignedRequest, name: str, value: str) -> SignedRequest:
    return replace(request, headers={**request.headers, name: value})


def without_header(request: SignedRequest, name: str) -> SignedRequest:
    return replace(request, headers={k: v for k, v in request.headers.items() if k != name})


# --- what botocore signs is accepted ----------------------------------------------------------------------


@given(FORMS)
def test_forms_signed_in_the_header(form: dict[str, str]) -> None:
    accepted(v4(form))


@given(FORMS)
def test_queries_signed_in_the_header(query: dict[str, str]) -> None:
    accepted(v4(url=f"http://h/?{urlencode(query, quote_via=quote)}"))
    accepted(v4(url=f"http://h/?{urlencode(query)}"))


@given(FORMS)
def test_presigned(query: dict[str, str]) -> None:
    accepted(presigned(query))


@given(FORMS)
def test_version_2(form: dict[str, str]) -> None:
    accepted(v2(form))
    accepted(v2(form, method="GET"))


@pytest.mark.parametrize("path", ["", "/", "/ec2", "/ec2/", "//a//b/", "/a/../b/./c", "/a%20b/%C3%A9", "/a:b~c/*"])
def test_paths(path: str) -> None:
    accepted(v4(PARAMETERS, url=f"http://h{path}"))
    accepted(v4(PARAMETERS, url=f"https://h:8774{path}"))


def test_repeated_and_bare_parameters() -> None:
    accepted(v4(url="http://h/?b=2&a&b=1&a=&a=%2B&aa=x&a%3D=y"))


def test_what_other_clients_do() -> None:
    headers = {"Accept": "*/*", "Accept-Encoding": "gzip,  deflate", "Content-Length": "5", "amz-sdk-request": " a  b "}
    accepted(v4(PARAMETERS, headers=headers, region="undefined-4711"))
    signed = v4(PARAMETERS, region="0")
    accepted(with_header(signed, "authorization", signed.headers["authorization"].replace(", ", ",")))
    accepted(with_header(v4(PARAMETERS, headers={"Date": "x"}), "x-other", "not signed"))


def test_a_body_that_is_said_to_be_unsigned() -> None:
    signed = v4(PARAMETERS, headers={"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"})
    accepted(signed)
    refused(with_header(v4(PARAMETERS), "x-amz-content-sha256", "UNSIGNED-PAYLOAD"), SignatureDoesNotMatch)
    digest = hashlib.sha256(signed.body).hexdigest()
    accepted(v4(PARAMETERS, headers={"X-Amz-Content-SHA256": digest}))
    refused(v4(PARAMETERS, headers={"X-Amz-Content-SHA256": "0" * 64}), SignatureDoesNotMatch)


@pytest.mark.parametrize("method", ["HmacSHA256", "HmacSHA1"])
def test_version_2_by_hand(method: str) -> None:
    stamp = now().strftime("%Y-%m-%dT%H:%M:%SZ")
    accepted(v2_signed({**PARAMETERS, "Timestamp": stamp}, method=method))
    accepted(v2_signed({**PARAMETERS, "Timestamp": stamp}, method=method, host="CLOUD.Example"))


# --- the clock --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [v4, v2])
def test_the_clock_window(sign: Signer) -> None:
    signed, at = sign(PARAMETERS), now()
    for seconds in (-890, 0, 890):
        accepted(signed, at + timedelta(seconds=seconds))
    for seconds in (-910, 910, 10**9):
        refused(signed, RequestExpired, at=at + timedelta(seconds=seconds))


def test_presigned_expires() -> None:
    signed, at = presigned(PARAMETERS, expires=3600), now()
    accepted(signed, at + timedelta(seconds=3590))
    refused(signed, RequestExpired, at=at + timedelta(seconds=3610))
    refused(signed, RequestExpired, at=at - timedelta(seconds=910))
    for expires in (0, -1, 604801, 10**9):
        refused(presigned(PARAMETERS, expires=expires))


def test_version_2_expires() -> None:
    at = now()
    for form in ("%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S.000Z", "%Y-%m-%dT%H:%M:%S", "%Y%m%dT%H%M%SZ"):
        accepted(v2_signed({"Action": "A", "Expires": (at + timedelta(seconds=60)).strftime(form)}))
        accepted(v2_signed({"Action": "A", "Timestamp": at.strftime(form)}))
        refused(v2_signed({"Action": "A", "Expires": (at - timedelta(seconds=60)).strftime(form)}), RequestExpired)


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"Timestamp": ""},
        {"Timestamp": "yesterday"},
        {"Expires": "0001-01-01T00:00:00+14:00"},
        {"Timestamp": "2026-01-01T00:00:00Z", "Expires": "2126-01-01T00:00:00Z"},
        {"Expires": "2126-01-01T00:00:00Z", "SignatureVersion": "1"},
        {"Expires": "2126-01-01T00:00:00Z", "SignatureMethod": "HmacMD5"},
        {"Expires": "2126-01-01T00:00:00Z", "SignatureMethod": ""},
        {"Expires": "2126-01-01T00:00:00Z", "AWSAccessKeyId": ""},
    ],
)
def test_version_2_with_wrong_pieces(parameters: dict[str, str]) -> None:
    refused(v2_signed({"Action": "A", **parameters}))


# --- tampering --------------------------------------------------------------------------------------------


TAMPERED: dict[str, Callable[[SignedRequest], SignedRequest]] = {
    "method": lambda r: replace(r, method="PUT"),
    "path": lambda r: replace(r, path=r.path + "x"),
    "query added": lambda r: replace(r, query_string=f"{r.query_string}&A=B"),
    "host": lambda r: with_header(r, "host", "other.example"),
    "no host": lambda r: without_header(r, "host"),
    "not encoded": lambda r: replace(r, query_string=r.query_string + "é"),
}


@pytest.mark.parametrize("tamper", TAMPERED)
@pytest.mark.parametrize("sign", [v4, v2, presigned, lambda p: v2(p, method="GET")])
def test_every_part_is_signed(sign: Signer, tamper: str) -> None:
    signed = sign(PARAMETERS)
    accepted(signed)
    refused(TAMPERED[tamper](signed))


@pytest.mark.parametrize("sign", [v4, v2, presigned, lambda p: v2(p, method="GET")])
def test_another_secret(sign: Signer) -> None:
    for secret in ("", "abc", SECRET + "x"):
        with pytest.raises(SignatureDoesNotMatch):
            verify(sign(PARAMETERS), secret, now(), 900)


# What is drawn does not look at what was signed: that changes with the clock, and a second try would draw otherwise.
anywhere = st.integers(0, 10**6)


def _another(char: str, n: int, alphabet: str) -> str:
    """A character of the alphabet that is not this one."""
    others = [c for c in alphabet if c.lower() != char.lower()]
    return others[n % len(others)]


@given(st.sampled_from([v4, v2, presigned]), anywhere, anywhere, anywhere)
def test_any_byte_changed(sign: Signer, part: int, place: int, n: int) -> None:
    signed = sign({"Action": "RunInstances", "MinCount": "1"})
    parts = [name for name in ("body", "query_string", "path") if getattr(signed, name)]
    where = parts[part % len(parts)]
    whole = signed.body.decode() if where == "body" else getattr(signed, where)
    at = place % len(whole)
    changed = whole[:at] + _another(whole[at], n, "abcXYZ019") + whole[at + 1 :]
    change: dict[str, Any] = {where: changed.encode() if where == "body" else changed}
    refused(replace(signed, **change))


@given(anywhere, anywhere)
def test_any_character_of_the_authorization_changed(place: int, n: int) -> None:
    signed = v4(PARAMETERS)
    text = signed.headers["authorization"]
    places = [i for i in range(text.index("/"), len(text)) if text[i] != " "]
    at = places[place % len(places)]
    refused(with_header(signed, "authorization", text[:at] + _another(text[at], n, "abcXYZ019=,;/é") + text[at + 1 :]))


@pytest.mark.parametrize("name", ["x-amz-date", "content-type", "host"])
def test_signed_headers(name: str) -> None:
    signed = v4(PARAMETERS)
    refused(without_header(signed, name))
    refused(with_header(signed, name, signed.headers[name] + "0"))


@pytest.mark.parametrize(
    "change",
    [
        ("Credential=", "Credentia="),
        ("Credential=", "Credential=x, Credential="),
        ("SignedHeaders=", "Signature=00, SignedHeaders="),
        ("/aws4_request", ""),
        (KEY, ""),
        ("host;", ""),
        ("content-type;host", "host;content-type"),
        ("content-type;host", "content-type;host;host"),
        ("content-type;", "Content-Type;"),
        ("content-type;", "content-type;content-type;"),
        ("content-type;", ";"),
        ("content-type;host;", "content-type;host;not-sent;"),
        ("AWS4-HMAC-SHA256 ", "AWS4-HMAC-SHA512 "),
        ("AWS4-HMAC-SHA256 ", "AWS4-HMAC-SHA256"),
        ("Signature=", "Signature=é"),
    ],
)
def test_the_authorization_header_in_pieces(change: tuple[str, str]) -> None:
    signed = v4(PARAMETERS)
    changed = signed.headers["authorization"].replace(*change)
    assert changed != signed.headers["authorization"]
    refused(with_header(signed, "authorization", changed))


@pytest.mark.parametrize("part", ["Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature"])
def test_the_presigned_query_in_pieces(part: str) -> None:
    signed = presigned(PARAMETERS)
    pairs = signed.query_string.split("&")
    own = next(pair for pair in pairs if pair.startswith(f"X-Amz-{part}="))
    refused(replace(signed, query_string="&".join(pair for pair in pairs if pair != own)))
    refused(replace(signed, query_string=f"{signed.query_string}&{own}"))
    refused(replace(signed, query_string=signed.query_string.replace(own, own + "0")))


@pytest.mark.parametrize(
    "part", ["AWSAccessKeyId", "SignatureVersion", "SignatureMethod", "Timestamp", "Signature", "Action"]
)
def test_the_form_of_version_2_in_pieces(part: str) -> None:
    signed = v2(PARAMETERS)
    pairs = signed.body.split(b"&")
    own = next(pair for pair in pairs if pair.startswith(f"{part}=".encode()))
    refused(replace(signed, body=b"&".join(pair for pair in pairs if pair != own)))
    refused(replace(signed, body=signed.body + b"&" + own))
    refused(replace(signed, query_string=own.decode()))
    refused(replace(signed, body=signed.body.replace(own, own + b"0")))


@pytest.mark.parametrize(
    "stamp", ["", "20260101", "20261301T000000Z", "2026-01-01T00:00:00Z", "x", "Mon, 99 Jan 2026 00:00:00 GMT"]
)
def test_dates_that_are_none(stamp: str) -> None:
    refused(with_header(v4(PARAMETERS), "x-amz-date", stamp))


def test_a_date_of_another_day_than_the_credentials() -> None:
    signed = v4(PARAMETERS)
    refused(with_header(signed, "x-amz-date", "20200101T000000Z"))


def test_none_or_two_signatures() -> None:
    plain = SignedRequest("GET", "/", "Action=A", {"host": "h"}, b"")
    refused(plain)
    refused(with_header(plain, "authorization", "Basic abc"))
    both = v4(PARAMETERS)
    refused(replace(both, query_string=presigned(PARAMETERS).query_string))
    refused(with_header(v2(PARAMETERS), "authorization", both.headers["authorization"]))
    accepted(with_header(v2(PARAMETERS), "authorization", "Basic abc"))


@given(st.text(), st.text(), st.binary())
def test_noise_is_refused_politely(authorization: str, query: str, body: bytes) -> None:
    for head in ("", "AWS4-HMAC-SHA256 "):
        refused(SignedRequest("POST", "/", query, {"host": "h", "authorization": head + authorization}, body))
