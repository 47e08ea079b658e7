"""Joining over REST: statuses, and problems that name the field."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from werkzeug.test import Client, TestResponse

from api.app import create_app
from api.errors import ERRORS
from api.rest.problem import PROTOCOL_STATUS
from controller.cli.logs import hide_secrets
from controller.operations.hosts import hosts, join
from tests.labs.cloud import TestCloud

BODY: dict[str, Any] = {
    "name": "h1",
    "boot_id": "b1",
    "hypervisor": "kvm",
    "vcpus": 8,
    "memory_mib": 16384,
    "disk_gib": 100,
    "labels": ["ssd"],
    "allowed_macs": ["52:54:00:00:00:01"],
}


class Door:
    """The application, and a token that lets three hosts in."""

    def __init__(self, site: TestCloud) -> None:
        self.site = site
        self.client = Client(create_app(site.cloud))
        self.token = site.cloud.write(lambda tx: join.create_token(tx, "h*", 3)[1])

    def post(self, body: object = None, **changes: Any) -> TestResponse:
        document = {**BODY, "token": self.token, **changes} if body is None else body
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        base = {"REMOTE_ADDR": "192.0.2.7"}
        return self.client.post("/v1/hosts/join", data=data, content_type="application/json", environ_base=base)


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    site = TestCloud.create(tmp_path, bus__url="amqp://u:p@broker//", api__public_url="https://cloud:8773/")
    yield Door(site)
    site.close()


def problem(answer: TestResponse, status: int) -> dict[str, Any]:
    assert (answer.status_code, answer.content_type) == (status, "application/problem+json")
    found: dict[str, Any] = json.loads(answer.data)
    assert {"type", "title", "status", "detail", "code"} <= found.keys()
    assert found["status"] == status
    return found


def test_a_host_joins_and_joins_again(door: Door) -> None:
    answer = door.post(from_the_future={"a": 1})
    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store"
    found = json.loads(answer.data)
    assert found == {
        "host": "h1",
        "renewed": False,
        "cloud_id": "c10dc10d",
        "bus_url": "amqp://u:p@broker//",
        "public_url": "https://cloud:8773",
        "zone": "pileus-1",
        "network": {"trunk": "", "physical_network": "default"},
    }
    assert door.post().status_code == 200
    assert door.site.cloud.read(lambda tx: hosts.get_host(tx, "h1")).labels == "ssd"


def test_tokens_and_names_that_do_not_fit(door: Door) -> None:
    assert "no such join token" in problem(door.post(token="nonsense"), 401)["detail"]
    assert "for hosts named h*" in problem(door.post(name="x1"), 403)["detail"]
    door.post()
    assert "is alive" in problem(door.post(boot_id="other"), 409)["detail"]


@pytest.mark.parametrize("field", ["token", "name", "hypervisor", "vcpus", "memory_mib", "disk_gib"])
def test_a_missing_field_is_named(door: Door, field: str) -> None:
    body = {k: v for k, v in {**BODY, "token": door.token}.items() if k != field}
    assert problem(door.post(body), 400)["field"] == field


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vcpus", "8"),
        ("vcpus", 8.0),
        ("vcpus", True),
        ("vcpus", None),
        ("vcpus", -8),
        ("vcpus", 10**300),
        ("name", 7),
        ("name", "../etc"),
        ("name", "h" * 64),
        ("token", ["x"]),
        ("token", "\ud800"),
        ("labels", "ssd"),
        ("labels", [7]),
        ("labels", ["x"] * 100),
        ("labels", {"a": "b"}),
        ("allowed_macs", ["nonsense"]),
        ("zone", "z\u0000"),
        ("images", [None]),
    ],
)
def test_a_bad_field_is_named(door: Door, field: str, value: object) -> None:
    found = problem(door.post(**{field: value}), 400)
    assert (found["field"], found["code"]) == (field, "request.invalid_parameter")
    assert len(found["detail"]) < 300


@pytest.mark.parametrize(
    "body", [b"", b"nonsense", b"[]", b"null", b"7", b"[" * 100000, b"\xff\xfe", b'{"vcpus":' + b"9" * 5000 + b"}"]
)
def test_body_that_is_no_json_object(door: Door, body: bytes) -> None:
    assert problem(door.post(body), 400)["code"] == "request.not_json"


def test_other_faults_are_problems_too(door: Door) -> None:
    assert problem(door.post(b" " * (1 << 20) + b"{}"), 413)["code"] == "request.too_large"
    form = door.client.post("/v1/hosts/join", data={"a": "b"})
    assert problem(form, 415)["code"] == "request.media_type"
    get = door.client.get("/v1/hosts/join")
    assert problem(get, 405)["code"] == "http.405"
    assert get.headers["Allow"] == "POST"
    assert problem(door.client.get("/v1/nothing"), 404)["code"] == "http.404"


def test_an_embedded_cloud_takes_no_hosts(tmp_path: Path) -> None:
    site = TestCloud.create(tmp_path)
    assert "RabbitMQ" in problem(Door(site).post(), 409)["detail"]
    site.close()


def test_an_internal_error_tells_nothing(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr("api.rest.hosts.join", fail)
    assert "secret" not in str(problem(door.post(), 500))


def test_every_error_has_a_status() -> None:
    statuses = {row.rest for row in ERRORS.values()} | set(PROTOCOL_STATUS.values())
    assert statuses <= {400, 401, 403, 404, 409, 413, 415, 500, 503}


def test_log_names_accepted_and_refused_hosts(door: Door) -> None:
    with capture_logs() as lines:
        door.post(token="guessed")
        door.post()
    (refused,) = (line for line in lines if line["event"] == "refused")
    assert (refused["path"], refused["code"], refused["client"]) == ("/v1/hosts/join", "auth.failed", "192.0.2.7")
    (joined,) = (line for line in lines if line["event"] == "host joined")
    (token,) = door.site.cloud.read(join.list_tokens)
    assert hide_secrets(None, "", dict(joined))["by"] == token.id
    assert "guessed" not in str(lines)
