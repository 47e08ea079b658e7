"""The audit over REST: for the operator's own command only."""

from pathlib import Path

import pytest
from flask.testing import FlaskClient

from api.app import create_app
from controller.operations.audit.operator_token import is_operator, operator_token
from tests.labs.cloud import TestCloud

WISHES = {"repair": False, "settle_s": 0.0, "timeout_s": 0.1, "most_removals": 0}


@pytest.fixture
def client(site: TestCloud) -> FlaskClient:
    return create_app(site.cloud).test_client()


@pytest.fixture
def site(tmp_path: Path) -> TestCloud:
    return TestCloud.create(tmp_path)


def test_the_operator_is_answered(site: TestCloud, client: FlaskClient) -> None:
    header = {"Authorization": f"Bearer {operator_token(site.cloud.settings)}"}
    answer = client.post("/v1/audit", json=WISHES, headers=header)
    assert answer.status_code == 200
    assert client.post("/v1/audit", json={**WISHES, "settle_s": 0}, headers=header).status_code == 200
    assert answer.json is not None
    (violation,) = answer.json["breaches"]
    assert violation["subject"] == "the network service"  # nobody answers on this bus
    assert answer.json["clean"] is False
    refused = client.post("/v1/audit", json={**WISHES, "settle_s": 1000.0}, headers=header)
    assert (refused.status_code, refused.json and refused.json["field"]) == (400, "settle_s")
    assert client.post("/v1/audit", json={}, headers=header).status_code == 400


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic x", "Bearer 00", "Bearer é"])
def test_other_tokens_are_refused(site: TestCloud, client: FlaskClient, header: str) -> None:
    assert not is_operator(site.cloud.settings, header)
    headers = {"Authorization": header.encode("latin-1", "replace").decode("latin-1")} if header else {}
    answer = client.post("/v1/audit", json=WISHES, headers=headers)
    assert (answer.status_code, answer.content_type) == (403, "application/problem+json")


def test_another_clouds_key_is_none(site: TestCloud, tmp_path: Path) -> None:
    other = TestCloud.create(tmp_path / "other")
    assert not is_operator(site.cloud.settings, f"Bearer {operator_token(other.cloud.settings)}")
    other.close()
