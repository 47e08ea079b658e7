"""The metadata door, over a real database: who gets what, and who gets nothing."""

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from api.metadata.app import LOCAL_ADDRESS, create_app
from api.metadata.caller_cache import CallerCache
from controller.db.models import Instance, Reservation
from controller.domain.errors import DatabaseUnavailable
from controller.domain.states import State
from controller.operations.cloud import Cloud
from controller.operations.instances.metadata import GuestMetadata, find_guest
from tests.labs.network_rows import GATEWAYS, INSTANCES, IPS, MACS, PUBLIC_KEY, make_cloud

USER_DATA = b"#!/bin/sh\necho \xff\x00\n"
TOKEN = "X-aws-ec2-metadata-token"
TTL = "X-aws-ec2-metadata-token-ttl-seconds"


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    return make_cloud(tmp_path, user_data=base64.b64encode(USER_DATA).decode())


@pytest.fixture
def client(cloud: Cloud) -> Iterator[FlaskClient]:
    with create_app(
        cloud, CallerCache(lambda r, local: cloud.read(lambda tx: find_guest(tx, r, local)), ttl_s=0)
    ).test_client() as c:
        yield c


def ends(guest: int = 0, more: dict[str, str] | None = None) -> dict[str, Any]:
    """The two ends of a guest's connection, and further headers."""
    return {"environ_base": {"REMOTE_ADDR": IPS[guest], LOCAL_ADDRESS: GATEWAYS[guest]}, "headers": more or {}}


def get(client: FlaskClient, path: str, guest: int = 0) -> str:
    answer = client.get(path, **ends(guest))
    assert answer.status_code == 200, path
    return str(answer.get_data(as_text=True))


@pytest.mark.parametrize("version", ["latest", "1.0", "2009-04-04", "2021-03-23", "2031-01-01"])
def test_each_guest_gets_its_own_metadata(client: FlaskClient, version: str) -> None:
    for guest, (instance, ip, mac) in enumerate(zip(INSTANCES, IPS, MACS, strict=True)):
        base = f"/{version}/meta-data"
        assert get(client, f"{base}/instance-id", guest) == instance
        assert get(client, f"{base}/local-ipv4", guest) == ip
        assert get(client, f"{base}/mac", guest) == mac
        assert get(client, f"{base}/ami-launch-index", guest) == str(guest)
        assert get(client, f"{base}/local-hostname", guest) == f"ip-{ip.replace('.', '-')}.pileus.internal"


def test_listings(client: FlaskClient) -> None:
    assert get(client, "/").splitlines()[-1] == "latest"
    assert get(client, "/latest/").splitlines() == ["dynamic", "meta-data", "user-data"]
    listing = get(client, "/latest/meta-data/").splitlines()
    assert {"ami-id", "instance-id", "network/", "placement/", "public-keys/", "services/"} <= set(listing)
    assert get(client, "/latest/meta-data/public-keys/") == get(client, "/latest/meta-data/public-keys") == "0=demo"
    assert get(client, "/latest/meta-data/public-keys/0/") == "openssh-key"
    assert get(client, "/latest/meta-data/public-keys/0/openssh-key") == PUBLIC_KEY
    assert get(client, "/latest/meta-data/network/interfaces/macs/") == f"{MACS[0]}/"
    assert get(client, f"/latest/meta-data/network/interfaces/macs/{MACS[0]}/subnet-ipv4-cidr-block") == "10.128.0.0/22"
    assert get(client, "/latest/meta-data/placement/availability-zone") == "pileus-1"


def crawl(client: FlaskClient, path: str) -> int:
    """As cloud-init does it: what ends in a slash is a folder, the rest is a leaf."""
    leaves = 0
    for entry in get(client, path).splitlines():
        if entry.endswith("/"):
            leaves += crawl(client, path + entry)
        elif "=" in entry:
            leaves += crawl(client, f"{path}{entry.partition('=')[0]}/")
        else:
            assert get(client, path + entry)
            leaves += 1
    return leaves


def test_everything_listed_is_there(client: FlaskClient) -> None:
    assert crawl(client, "/2009-04-04/meta-data/") > 20


def test_user_data_is_given_byte_by_byte(client: FlaskClient) -> None:
    answer = client.get("/latest/user-data", **ends())
    assert answer.data == USER_DATA
    assert answer.content_type == "application/octet-stream"
    assert client.get("/nocloud/user-data", **ends()).data == USER_DATA


def test_without_user_data_and_key(client: FlaskClient, cloud: Cloud) -> None:
    cloud.write(lambda tx: tx.session.query(Reservation).update({"user_data": "", "public_key": ""}))
    assert client.get("/latest/user-data", **ends()).status_code == 404
    assert client.get("/latest/meta-data/public-keys/", **ends()).status_code == 404
    assert "public-keys" not in get(client, "/latest/meta-data/")
    assert get(client, "/nocloud/user-data") == ""
    assert "public-keys: []" in get(client, "/nocloud/meta-data")


def test_identity_document(client: FlaskClient) -> None:
    assert get(client, "/latest/dynamic/") == "instance-identity/"
    document = json.loads(get(client, "/latest/dynamic/instance-identity/document"))
    assert document["instanceId"] == INSTANCES[0]
    assert document["accountId"] == "123456789012"
    assert document["pendingTime"] == "2026-03-01T12:00:00Z"


def test_nocloud(client: FlaskClient) -> None:
    lines = dict(line.split(": ", 1) for line in get(client, "/nocloud/meta-data").splitlines())
    assert json.loads(lines["instance-id"]) == INSTANCES[0]
    assert json.loads(lines["public-keys"]) == [PUBLIC_KEY]
    assert get(client, "/nocloud/vendor-data") == ""
    assert client.get("/nocloud/other", **ends()).status_code == 404


@pytest.mark.parametrize(
    ("remote", "local"),
    [
        (IPS[0], GATEWAYS[1]),  # an address of one network, seen in another
        ("10.128.0.3", GATEWAYS[0]),
        ("127.0.0.1", "127.0.0.1"),
        (IPS[0], ""),
        ("", ""),
    ],
)
def test_unknown_addresses_get_nothing(client: FlaskClient, remote: str, local: str) -> None:
    for path in ("/", "/latest/meta-data/instance-id", "/nocloud/meta-data"):
        answer = client.get(path, environ_base={"REMOTE_ADDR": remote, LOCAL_ADDRESS: local})
        assert answer.status_code == 404
        assert INSTANCES[0] not in answer.text


def test_deleted_instance_gets_nothing(client: FlaskClient, cloud: Cloud) -> None:
    cloud.write(lambda tx: tx.session.query(Instance).update({"state": State.DELETED}))
    assert client.get("/latest/meta-data/instance-id", **ends()).status_code == 404


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded"])
def test_a_proxy_is_refused(client: FlaskClient, header: str) -> None:
    assert client.get("/latest/meta-data/", **ends(0, {header: IPS[1]})).status_code == 403
    assert client.put("/latest/api/token", **ends(0, {header: IPS[1], TTL: "60"})).status_code == 403


def test_token(client: FlaskClient, cloud: Cloud) -> None:
    answer = client.put("/latest/api/token", **ends(0, {TTL: "60"}))
    assert answer.status_code == 200
    assert answer.headers[TTL] == "60"
    token = answer.text
    path = "/latest/meta-data/instance-id"
    assert client.get(path, **ends(0, {TOKEN: token})).text == INSTANCES[0]
    assert client.get(path, **ends(1, {TOKEN: token})).status_code == 401  # another instance's
    for bad in ("", "x", token[:-1], f"f{token}", f"{token}0"):
        assert client.get(path, **ends(0, {TOKEN: bad})).status_code == 401
    later = replace(cloud, clock=lambda: cloud.clock() + timedelta(seconds=61))
    assert create_app(later).test_client().get(path, **ends(0, {TOKEN: token})).status_code == 401


@pytest.mark.parametrize("ttl", [None, "", "0", "21601", "-1", "1.5", "x", "9" * 30])
def test_token_wants_a_time(client: FlaskClient, ttl: str | None) -> None:
    headers = {} if ttl is None else {TTL: ttl}
    assert client.put("/latest/api/token", **ends(0, headers)).status_code == 400


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/latest/api/token"), ("POST", "/latest/"), ("DELETE", "/"), ("PUT", "/latest/")]
)
def test_other_methods(client: FlaskClient, method: str, path: str) -> None:
    assert client.open(path, method=method, **ends()).status_code == 405


@pytest.mark.parametrize(
    "path",
    ["/x", "/latest/x", "/latest/meta-data/x", "/latest/meta-data/../x", "/latest/meta-data/mac/x", "/2009-4-4/"],
)
def test_unknown_paths(client: FlaskClient, path: str) -> None:
    assert client.get(path, **ends()).status_code == 404


def test_without_a_database_answers_retry_later(cloud: Cloud) -> None:
    def gone(remote: str, local: str) -> GuestMetadata | None:
        raise DatabaseUnavailable(what="The database", reason="gone")

    answer = create_app(cloud, CallerCache(gone)).test_client().get("/latest/", **ends())
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]


def test_caller_cache_asks_once_per_ttl(cloud: Cloud) -> None:
    asked: list[str] = []
    now = [0.0]

    def find(remote: str, local: str) -> GuestMetadata | None:
        asked.append(remote)
        return cloud.read(lambda tx: find_guest(tx, remote, local))

    recent = CallerCache(find, ttl_s=2, monotonic=lambda: now[0])
    for _ in range(3):
        found = recent.find(IPS[0], GATEWAYS[0])
        assert found is not None
        assert found.instance.id == INSTANCES[0]
    assert asked == [IPS[0]]
    now[0] = 2.0
    recent.find(IPS[0], GATEWAYS[0])
    assert len(asked) == 2
    for _ in range(2):
        assert recent.find("10.128.0.9", GATEWAYS[0]) is None
    assert len(asked) == 4
