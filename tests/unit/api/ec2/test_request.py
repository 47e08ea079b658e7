from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import pytest
from botocore.serialize import EC2Serializer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.ec2.protocol import model
from api.ec2.protocol.errors import (
    MalformedQueryString,
    MissingAction,
    RequestEntityTooLarge,
    UnknownParameter,
)
from api.ec2.protocol.form import MAX_BYTES, read_call, read_pairs
from api.ec2.protocol.request import decode_base64, parse, query_name
from controller.domain.errors import CloudError, InvalidParameter, MissingParameter
from tests.labs.ec2_shapes import structures

ACTIONS = (
    "RunInstances", "DescribeInstances", "CreateTags", "ImportKeyPair", "AuthorizeSecurityGroupIngress",
    "RegisterImage", "ModifyInstanceAttribute", "DescribeReservedInstancesOfferings", "DescribeSpotPriceHistory",
)  # fmt: skip


def parsed(action: str, **given: str) -> dict[str, Any]:
    return parse([(name.replace("_", "."), value) for name, value in given.items()], model.operation(action))


def described(*pairs: tuple[str, str]) -> dict[str, Any]:
    return parse(pairs, model.operation("DescribeInstances"))


@pytest.mark.parametrize("action", ACTIONS)
@given(data=st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_botocore_sends_is_read_back(action: str, data: st.DataObject) -> None:
    operation = model.operation(action)
    assert operation is not None
    parameters = data.draw(structures(operation.input_shape, empty=False))
    sent = EC2Serializer().serialize_to_request(parameters, operation)["body"]
    call = read_call("", urlencode(dict(sent)).encode())
    assert call.action == action
    assert call.version == "2016-11-15"
    assert parse(call.pairs, operation) == parameters


def test_every_input_of_the_model_has_one_member_for_each_name() -> None:
    for shape_name in model.service().shape_names:
        shape = model.service().shape_for(shape_name)
        if shape.type_name == "structure":
            names = [query_name(member, name) for name, member in shape.members.items()]
            assert len(names) == len(set(names)), shape_name


def test_an_action_that_ec2_does_not_have() -> None:
    assert model.operation("RunSomething") is None
    assert model.operation("") is None


def test_lists_from_zero_with_holes_and_in_any_order() -> None:
    assert described(("InstanceId.10", "c"), ("InstanceId.0", "a"), ("InstanceId.2", "b")) == {
        "InstanceIds": ["a", "b", "c"]
    }


def test_lists_with_member_between() -> None:
    pairs = [("Filter.member.1.Name", "x"), ("Filter.member.1.Value.member.1", "y")]
    assert described(*pairs) == {"Filters": [{"Name": "x", "Values": ["y"]}]}


def test_empty_parameters_are_absent() -> None:
    assert parsed(
        "RunInstances",
        MinCount="1",
        MaxCount="2",
        Placement_AvailabilityZone="",
        SecurityGroupId_1="",
        DryRun="",
        UserData="",
        InstanceInitiatedShutdownBehavior="",
        NotKnown="",
        BlockDeviceMapping_1_Ebs_VolumeSize="",
    ) == {"MinCount": 1, "MaxCount": 2}


def test_an_empty_value_of_a_tag_or_a_filter_is_a_value() -> None:
    assert parsed("CreateTags", ResourceId_1="i-1", Tag_1_Key="a", Tag_1_Value="") == {
        "Resources": ["i-1"],
        "Tags": [{"Key": "a", "Value": ""}],
    }
    assert described(("Filter.1.Name", "tag:a"), ("Filter.1.Value.1", "")) == {
        "Filters": [{"Name": "tag:a", "Values": [""]}]
    }


def test_signature_fields_are_no_parameters() -> None:
    reserved = "Action Version AWSAccessKeyId Signature SignatureMethod SignatureVersion Timestamp Expires"
    names = [*reserved.split(), "SecurityToken", "X-Amz-Algorithm", "X-Amz-Signature"]
    assert described(*((name, "x") for name in names)) == {}
    for operation in model.service().operation_names:
        shape = model.service().operation_model(operation).input_shape
        if shape is not None:
            members = {query_name(member, name) for name, member in shape.members.items()}
            assert not members & set(names), operation


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Nonsense", "1"),
        ("InstanceId.1.Name", "x"),
        ("InstanceId.x", "x"),
        ("InstanceId.-1", "x"),
        ("InstanceId.99999999", "x"),
        ("InstanceId.١", "x"),
        ("Filter.1.Nom", "x"),
        ("MaxResults.1", "5"),
        ("Filter..Name", "x"),
        ("", "x"),
        (".".join("a" * 50), "x"),
    ],
)
def test_unknown_names_are_named(name: str, value: str) -> None:
    with pytest.raises(UnknownParameter) as caught:
        described((name, value))
    assert caught.value.fields["parameter"] == name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MaxResults", "many"),
        ("MaxResults", "1_0"),
        ("MaxResults", " 5"),
        ("MaxResults", "٥"),
        ("MaxResults", "5.0"),
        ("MaxResults", "2147483648"),
        ("MaxResults", "9" * 5000),
        ("DryRun", "perhaps"),
        ("InstanceId", "i-1"),
        ("Filter.1", "x"),
        ("NextToken", "a\x00b"),
        ("NextToken", "\x1b[31m"),
    ],
)
def test_values_of_the_wrong_kind_are_named(name: str, value: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        described((name, value))
    assert caught.value.fields["parameter"] == name
    assert len(str(caught.value)) < 400


def test_the_same_name_or_index_twice() -> None:
    with pytest.raises(InvalidParameter):
        described(("InstanceId.1", "a"), ("InstanceId.1", "a"))
    with pytest.raises(InvalidParameter):
        described(("InstanceId.1", "a"), ("InstanceId.01", "b"))


def test_what_the_model_requires() -> None:
    with pytest.raises(MissingParameter) as caught:
        parsed("RunInstances", MinCount="1")
    assert caught.value.fields["parameter"] == "MaxCount"
    with pytest.raises(MissingParameter) as caught:
        parsed("CreateTags", ResourceId_1="", Tag_1_Key="a")
    assert caught.value.fields["parameter"] == "ResourceId"


def test_base64() -> None:
    assert parsed("ImportKeyPair", KeyName="k", PublicKeyMaterial="c3No\nLXJz\r\nYQ==") == {
        "KeyName": "k",
        "PublicKeyMaterial": b"ssh-rsa",
    }
    assert decode_base64(" aGVs bG8= ", "UserData") == b"hello"
    for wrong in ("a", "a===", "!!!!", "ä"):
        with pytest.raises(InvalidParameter):
            decode_base64(wrong, "UserData")


@pytest.mark.parametrize(
    "text", ["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000Z", "20260102T030405Z", "2026-01-02T04:04:05+01:00"]
)
def test_moments(text: str) -> None:
    assert parsed("DescribeSpotPriceHistory", StartTime=text) == {
        "StartTime": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    }


@pytest.mark.parametrize("text", ["yesterday", "0001-01-01T00:00:00+14:00", "2026-13-01T00:00:00Z", "٢"])
def test_no_moments(text: str) -> None:
    with pytest.raises(InvalidParameter):
        parsed("DescribeSpotPriceHistory", StartTime=text)


def test_a_call_by_get_or_by_form() -> None:
    for query, body in (("Action=A&x=1%2B+2", b""), ("", b"Action=A&x=1%2B+2\r\n")):
        call = read_call(query, body)
        assert (call.action, call.version) == ("A", "2016-11-15")
        assert call.pairs == (("Action", "A"), ("x", "1+ 2"))
    assert read_call("Action=A&Version=2009-11-30").version == "2009-11-30"
    assert read_call('Action=A&Version="/><x').version == "2016-11-15"


@pytest.mark.parametrize(
    ("query", "body", "error"),
    [
        ("", b"", MissingAction),
        ("Action=", b"", MissingAction),
        ("Action=A", b"Action=B", MalformedQueryString),
        ("Action=A&x=%ff", b"", MalformedQueryString),
        ("Action=A&x=ä", b"", MalformedQueryString),
        ("Action=A", b"\xff\xfe", MalformedQueryString),
        ("Action=A", b"x" * MAX_BYTES, RequestEntityTooLarge),
        ("&".join(f"x.{n}=1" for n in range(2001)), b"", RequestEntityTooLarge),
    ],
)
def test_what_is_no_call(query: str, body: bytes, error: type[CloudError]) -> None:
    with pytest.raises(error):
        read_call(query, body)


@given(st.binary(max_size=200), st.sampled_from(ACTIONS))
def test_noise_is_refused_politely(body: bytes, action: str) -> None:
    try:
        parse(read_pairs("", body), model.operation(action))
    except CloudError as error:
        assert str(error)


@given(st.lists(st.tuples(st.from_regex(r"(Filter|InstanceId|Placement|Tag)(\.(\w{1,9}|member|1)){0,5}"), st.text())))
def test_odd_names_are_refused_politely(pairs: list[tuple[str, str]]) -> None:
    for action in ("RunInstances", "DescribeInstances"):
        try:
            parse(pairs, model.operation(action))
        except CloudError as error:
            assert str(error)
