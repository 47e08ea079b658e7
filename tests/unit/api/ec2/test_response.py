import time
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from typing import Any
from xml.etree import ElementTree

import pytest
from botocore.parsers import EC2QueryParser
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.ec2.protocol import model
from api.ec2.protocol.model import Shape
from api.ec2.protocol.response import Fragment, error_document, escape, fragment, serialize
from tests.labs.ec2_shapes import structures

ACTIONS = (
    "RunInstances", "DescribeInstances", "DescribeInstanceStatus", "DescribeImages", "DescribeInstanceTypes",
    "CreateKeyPair", "DescribeTags", "GetConsoleOutput", "DescribeAvailabilityZones", "TerminateInstances",
)  # fmt: skip


def output_of(action: str) -> Shape:
    return model.service().operation_model(action).output_shape


def answer(action: str, result: dict[str, Any], version: str = "2016-11-15") -> str:
    return serialize(model.operation(action), result, request_id="req-1", version=version).decode()


def read(action: str, document: str) -> dict[str, Any]:
    response = {"body": document.encode(), "headers": {}, "status_code": 200}
    parsed: dict[str, Any] = EC2QueryParser().parse(response, output_of(action))
    assert parsed.pop("ResponseMetadata")["RequestId"] == "req-1"
    return parsed


@pytest.mark.parametrize("action", ACTIONS)
@given(data=st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_botocore_reads_the_same(action: str, data: st.DataObject) -> None:
    result = data.draw(structures(output_of(action), empty=True))
    assert read(action, answer(action, result)) == result


def test_the_document() -> None:
    result = {
        "ReservationId": "r-1",
        "Groups": [],
        "Instances": [
            {
                "InstanceId": "i-1",
                "KeyName": None,
                "EbsOptimized": False,
                "State": {"Code": 0, "Name": "pending"},
                "Placement": {},
                "LaunchTime": datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
            }
        ],
    }
    assert answer("RunInstances", result, "2009-11-30") == (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<RunInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2009-11-30/"><requestId>req-1</requestId>'
        "<reservationId>r-1</reservationId><groupSet/><instancesSet><item><instanceId>i-1</instanceId>"
        "<ebsOptimized>false</ebsOptimized><instanceState><code>0</code><name>pending</name></instanceState>"
        "<placement/><launchTime>2026-01-02T03:04:05.678Z</launchTime></item></instancesSet>"
        "</RunInstancesResponse>\n"
    )


def test_an_action_without_an_output_returns_true() -> None:
    assert "<requestId>req-1</requestId><return>true</return></RebootInstances" in answer("RebootInstances", {})
    with pytest.raises(KeyError):
        answer("RebootInstances", {"Return": True})


def test_a_fragment_stands_for_a_structure() -> None:
    whole = {"Instances": [{"InstanceId": "i-1"}, {"InstanceId": "i-2"}]}
    shape = output_of("RunInstances")
    parts = [fragment(shape.members["Instances"].member, item) for item in whole["Instances"]]
    assert parts[0] == Fragment("<instanceId>i-1</instanceId>")
    assert answer("RunInstances", {"Instances": parts}) == answer("RunInstances", whole)


@pytest.mark.parametrize(
    "result",
    [
        {"Instances": "text"},
        {"Instances": {"InstanceId": "x"}},
        {"Instances": [["x"]]},
        {"Instances": [{"InstanceId": 5}]},
        {"Instances": [{"InstanceId": b"i"}]},
        {"Instances": [{"AmiLaunchIndex": "0"}]},
        {"Instances": [{"AmiLaunchIndex": True}]},
        {"Instances": [{"EbsOptimized": "true"}]},
        {"Instances": [{"EbsOptimized": 1}]},
        {"Instances": [{"LaunchTime": "2026"}]},
        {"Instances": [{"LaunchTime": datetime(2026, 1, 1)}]},
        {"Instances": [{"State": "running"}]},
        {"Instances": [{"State": 0}]},
        {"Instances": [{"instanceId": "i-1"}]},
        {"Nothing": 1},
    ],
)
def test_result_that_does_not_fit_its_shape(result: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError)):
        answer("RunInstances", result)


def test_other_zones_and_enums() -> None:
    class State(StrEnum):
        RUNNING = "running"

    east = timezone(timedelta(hours=2))
    instance = {"LaunchTime": datetime(2026, 1, 1, 1, tzinfo=east), "State": {"Name": State.RUNNING}}
    document = answer("RunInstances", {"Instances": [instance]})
    assert "<launchTime>2025-12-31T23:00:00.000Z</launchTime>" in document
    assert "<name>running</name>" in document


@given(st.text(st.characters()))
def test_escaped_text_is_always_xml(text: str) -> None:
    root = ElementTree.fromstring(f"<a>{escape(text)}</a>")
    read_back = root.text or ""
    assert len(read_back) == len(text)
    assert all(a == b or b == "\ufffd" for a, b in zip(text, read_back, strict=True))


def test_characters_that_xml_cannot_carry() -> None:
    assert escape("a\x00b\ud800\ufffe]]>\r&\"'") == "a\ufffdb\ufffd\ufffd]]&gt;&#13;&amp;&quot;'"


def test_an_error_as_botocore_reads_it() -> None:
    body = error_document("InvalidInstanceID.NotFound", "The <instance> 'x\x00' & more", "req-1")
    parsed = EC2QueryParser().parse({"body": body, "headers": {}, "status_code": 400}, None)
    assert parsed["Error"] == {"Code": "InvalidInstanceID.NotFound", "Message": "The <instance> 'x\ufffd' & more"}
    assert parsed["ResponseMetadata"]["RequestId"] == "req-1"
    assert body.decode() == (
        '<?xml version="1.0" encoding="UTF-8"?>\n<Response><Errors><Error><Code>InvalidInstanceID.NotFound</Code>'
        "<Message>The &lt;instance&gt; 'x\ufffd' &amp; more</Message></Error></Errors>"
        "<RequestID>req-1</RequestID></Response>\n"
    )


def test_thousands_of_instances_are_quick() -> None:
    # The aim is 0.3 s for 8,000; the bound leaves room for a machine that has other things to do.
    launched = datetime(2026, 1, 1, tzinfo=UTC)
    instances = [
        {
            "InstanceId": f"i-{n:017x}", "ImageId": "ami-0123456789abcdef0", "State": {"Code": 16, "Name": "running"},
            "PrivateDnsName": f"ip-10-0-0-{n}.internal", "PublicDnsName": "", "KeyName": "key", "AmiLaunchIndex": n,
            "ProductCodes": [], "InstanceType": "m1.small", "LaunchTime": launched, "EbsOptimized": False,
            "Placement": {"AvailabilityZone": "nova", "GroupName": "", "Tenancy": "default"},
            "Monitoring": {"State": "disabled"}, "SubnetId": "subnet-0123456789abcdef0", "VpcId": "vpc-1",
            "PrivateIpAddress": f"10.0.{n // 256}.{n % 256}", "Architecture": "x86_64", "Hypervisor": "kvm",
            "RootDeviceType": "instance-store", "RootDeviceName": "/dev/vda", "BlockDeviceMappings": [],
            "VirtualizationType": "hvm", "ClientToken": f"token-{n}", "SecurityGroups": [],
            "Tags": [{"Key": "Name", "Value": f"web-{n}"}], "StateTransitionReason": "",
        }
        for n in range(8000)
    ]  # fmt: skip
    result = {
        "Reservations": [{"ReservationId": "r-1", "OwnerId": "123456789012", "Groups": [], "Instances": instances}]
    }
    answer("DescribeInstances", {"Reservations": []})
    began = time.process_time()
    document = answer("DescribeInstances", result)
    assert time.process_time() - began < 1.5
    assert document.count("<instanceId>") == 8000
