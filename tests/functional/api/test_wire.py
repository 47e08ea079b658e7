"""What comes over the wire: signatures, other clients' ways to ask, sizes, and what is no request at all."""

import json
from datetime import timedelta
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from api.ec2.actions.table import ACTIONS
from tests.labs.api_site import Site, ids_of, run
from tests.labs.ec2_wire import get_v2, get_v4, plain, post

VERSION = "2014-10-01"


def test_a_get_like_libcloud(site: Site, ec2: Any) -> None:
    ids = ids_of(run(site, ec2, 2))
    params = {"Action": "DescribeInstances", "Version": VERSION, "InstanceId.0": ids[0], "InstanceId.1": ids[1]}
    for get in (get_v2, get_v4):
        status, body = get(site, params)
        assert status == 200, body
        assert f'<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/{VERSION}/">'.encode() in body
        assert all(i.encode() in body for i in ids)
        assert b"<groupSet/>" in body
        assert b"<launchTime>" in body


def test_empty_parameters_are_none(site: Site) -> None:
    form = {
        "Action": "RunInstances", "Version": "2016-11-15", "ImageId": site.image, "MinCount": "1", "MaxCount": "1",
        "Placement.AvailabilityZone": "", "KeyName": "", "SecurityGroupId.1": "", "UserData": "", "DryRun": "",
        "InstanceType": "p1.tiny", "BlockDeviceMapping.1.DeviceName": "",
    }  # fmt: skip
    status, body = post(site, form, "/ec2/")
    assert status == 200, body


@pytest.mark.parametrize(
    ("form", "status", "code"),
    [
        ({"Action": "MakeCoffee"}, 400, "InvalidAction"),
        ({"Action": "CreateVpc", "CidrBlock": "10.0.0.0/16"}, 400, "UnsupportedOperation"),
        ({"Version": "2016-11-15"}, 400, "MissingAction"),
        ({"Action": "DescribeInstances", "Colour": "red"}, 400, "UnknownParameter"),
        ({"Action": "DescribeInstances", "InstanceId.1.Name": "x"}, 400, "UnknownParameter"),
        ({"Action": "DescribeInstances", "MaxResults": "ten"}, 400, "InvalidParameterValue"),
        ({"Action": "StopInstances"}, 400, "MissingParameter"),
        ({"Action": "DescribeInstances", "Filter.1.Name": "\x01"}, 400, "InvalidParameterValue"),
        (b"Action=DescribeInstances&InstanceId.1=%ff", 400, "MalformedQueryString"),
        (b"\x00\xff" * 50, 400, "MalformedQueryString"),
        (b"Action=DescribeInstances&x=" + b"y" * (1 << 20), 413, "RequestEntityTooLarge"),
        (b"Action=DescribeInstances&" + b"&".join(b"a%d=" % n for n in range(5000)), 413, "RequestEntityTooLarge"),
    ],
)
def test_bad_requests(site: Site, form: Any, status: int, code: str) -> None:
    answered, body = post(site, form)
    assert (answered, f"<Code>{code}</Code>".encode() in body) == (status, True), body
    assert b"<RequestID>" in body


def test_a_body_of_any_size_is_not_read_for_ever(site: Site) -> None:
    status, headers, _ = plain(site, "POST", "/", headers={"Content-Length": str(1 << 40)})
    assert status == 413
    assert "Server" not in headers


def test_request_without_signature_is_refused(site: Site) -> None:
    status, headers, body = plain(site, "GET", "/?Action=DescribeInstances")
    assert (status, b"<Code>AuthFailure</Code>" in body) == (401, True)
    assert headers["Content-Type"] == "text/xml;charset=UTF-8"
    assert "Server" not in headers


def test_wrong_secret_and_unknown_key(site: Site) -> None:
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        site.client(aws_secret_access_key="not-the-secret").describe_instances()
    with pytest.raises(ClientError, match="AuthFailure"):
        site.client(aws_access_key_id="AKIAAAAAAAAAAAAAAAAA").describe_instances()


@pytest.mark.parametrize("minutes", [-16, 16])
def test_a_clock_that_is_off(site: Site, ec2: Any, minutes: int) -> None:
    site.offset = timedelta(minutes=minutes)
    with pytest.raises(ClientError, match="RequestExpired"):
        ec2.describe_instances()


def test_a_body_changed_on_its_way(site: Site) -> None:
    request = AWSRequest("POST", site.url + "/", {}, data=b"Action=DescribeInstances")
    SigV4Auth(Credentials(site.key, site.secret), "ec2", "pileus").add_auth(request)
    headers = dict(request.prepare().headers.items())
    status, _, body = plain(site, "POST", "/", b"Action=DescribeKeyPairs&", headers)
    assert (status, b"SignatureDoesNotMatch" in body) == (403, True)


def test_unexpected_error_is_hidden(site: Site, ec2: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: Any) -> Any:
        raise RuntimeError("postgresql://user:password@db")

    monkeypatch.setattr("api.ec2.door.ACTIONS", {**ACTIONS, "DescribeInstances": explode})
    with pytest.raises(ClientError) as caught:
        ec2.describe_instances()
    assert caught.value.response["Error"]["Code"] == "InternalError"
    assert "password" not in str(caught.value.response)
    assert caught.value.response["ResponseMetadata"]["RequestId"]


def test_an_escaped_text_comes_back_as_it_was(site: Site, ec2: Any) -> None:
    (instance_id,) = ids_of(run(site, ec2))
    value = '<a href="x">&amp; \' ü 漢 🎉 \t</a>'
    ec2.create_tags(Resources=[instance_id], Tags=[{"Key": "k&<", "Value": value}])
    (shown,) = ec2.describe_instances()["Reservations"][0]["Instances"]
    assert shown["Tags"] == [{"Key": "k&<", "Value": value}]


def test_other_paths_and_methods(site: Site) -> None:
    for method, path, status in (
        ("GET", "/nothing", 404),
        ("GET", "/ec2x", 404),
        ("DELETE", "/", 405),
        ("GET", "/images/../secret.key", 404),
        ("GET", "//ec2//../x", 404),
    ):
        answered, _, body = plain(site, method, path)
        assert answered == status, (path, body)
        assert json.loads(body)["code"].startswith(("http.", "not_found"))
