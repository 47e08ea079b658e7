"""The table of actions and what is accepted without effect, against EC2's own model."""

import re
from datetime import UTC
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.ec2.actions import launch
from api.ec2.actions.context import UnsupportedParameter
from api.ec2.actions.instances import position_text, read_position
from api.ec2.actions.table import ACTIONS
from api.ec2.actions.tag_specifications import read_tag_specifications, read_tags
from api.ec2.protocol.model import operation
from controller.domain.errors import InvalidPage, InvalidParameter, MissingParameter
from controller.operations.instances.views import Position


def members(action: str) -> set[str]:
    model = operation(action)
    assert model is not None
    assert model.input_shape is not None
    return set(model.input_shape.members)


def test_every_action_is_one_of_ec2s_and_has_its_name() -> None:
    for name, handler in ACTIONS.items():
        assert operation(name) is not None, name
        assert handler.__name__ == re.sub("(?<!^)(?=[A-Z])", "_", name).lower()


def test_run_instances_handles_only_parameters_of_ec2() -> None:
    assert launch.HEEDED | launch.HARMLESS.keys() <= members("RunInstances")
    assert not launch.HEEDED & launch.HARMLESS.keys()


@pytest.mark.parametrize("name", sorted(members("RunInstances") - launch.HEEDED - launch.HARMLESS.keys()))
def test_every_other_parameter_of_run_instances_is_refused_by_name(name: str) -> None:
    with pytest.raises(UnsupportedParameter, match=name[:8]):
        launch.refuse_what_has_no_effect({name: "x"})


@given(st.datetimes(timezones=st.just(UTC)), st.integers(0, 10_000))
def test_a_position_comes_back(at: Any, index: int) -> None:
    position = Position(at, "r-0123456789abcdef0", index)
    assert read_position(position_text(position)) == position


@given(st.text())
def test_any_other_text_is_no_position(text: str) -> None:
    try:
        read_position(text)
    except InvalidPage:
        return
    assert text.count("/") == 2


@pytest.mark.parametrize("text", ["", "a/b/c", "2026-01-01/r/1", "2026-01-01T00:00:00/r/1", "/".join("1234")])
def test_a_position_without_a_moment_is_none(text: str) -> None:
    with pytest.raises(InvalidPage):
        read_position(text)


def test_tags() -> None:
    assert read_tags([{"Key": "a", "Value": "1"}, {"Key": "b"}]) == {"a": "1", "b": ""}
    with pytest.raises(InvalidParameter):
        read_tags([{"Key": "a"}, {"Key": "a"}])
    with pytest.raises(MissingParameter):
        read_tags([{"Value": "1"}])
    twice = [{"ResourceType": "instance", "Tags": []}] * 2
    with pytest.raises(InvalidParameter):
        read_tag_specifications(twice, "instance")
