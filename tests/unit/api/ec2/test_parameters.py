"""Parameters of operations are told to EC2's callers under EC2's names."""

from api.ec2.parameters import EC2_PARAMETER, message_of
from api.ec2.protocol.model import operation
from controller.domain.errors import InstanceNotFound, InvalidParameter


def test_every_name_is_one_of_ec2s() -> None:
    members = {"Tag.Key", "Tag.Value", "KeyType"}
    for action in ("RunInstances", "CreateKeyPair", "CreatePlacementGroup"):
        model = operation(action)
        assert model is not None
        assert model.input_shape is not None
        members |= set(model.input_shape.members)
    assert set(EC2_PARAMETER.values()) <= members


def test_parameter_and_reason_have_ec2_names() -> None:
    error = InvalidParameter(
        parameter="min_count/max_count", value="2/1", reason="they must satisfy 1 <= min_count <= max_count <= 9"
    )
    assert message_of(error) == (
        "Value (2/1) for parameter MinCount/MaxCount is invalid: they must satisfy 1 <= MinCount <= MaxCount <= 9."
    )


def test_a_word_of_the_reason_is_no_name() -> None:
    error = InvalidParameter(parameter="address", value="x", reason="it is no IPv4 address")
    assert message_of(error) == "Value (x) for parameter PrivateIpAddress is invalid: it is no IPv4 address."


def test_values_of_the_caller_stay() -> None:
    error = InvalidParameter(parameter="key_name", value="min_count", reason="it is min_count")
    assert message_of(error).startswith("Value (min_count) for parameter KeyName ")
    assert message_of(InstanceNotFound(id="key_name")) == "The instance ID 'key_name' does not exist."
