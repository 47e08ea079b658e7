import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.ec2.actions.instances import read_position
from api.ec2.protocol.paging import encode_token, page_size, position_of
from controller.domain.errors import InvalidCombination, InvalidPage, InvalidParameter

FILTERS = {"Filters": [{"Name": "a", "Values": ["b"]}]}


@given(st.text(max_size=50))
def test_a_token_comes_back(position: str) -> None:
    token = encode_token("DescribeInstances", {"MaxResults": 5, **FILTERS}, position)
    asked = {"MaxResults": 7, "NextToken": token, **FILTERS}
    assert position_of("DescribeInstances", asked) == position


def test_the_first_page_has_no_position() -> None:
    assert position_of("DescribeInstances", {"MaxResults": 5}) is None


def test_a_token_of_another_request() -> None:
    token = encode_token("DescribeInstances", FILTERS, "i-1")
    for action, parameters in (("DescribeVolumes", FILTERS), ("DescribeInstances", {})):
        with pytest.raises(InvalidPage):
            position_of(action, {"NextToken": token, **parameters})


@given(st.one_of(st.text(min_size=1), st.binary(min_size=1).map(lambda b: base64.b64encode(b).decode())))
def test_garbage(token: str) -> None:
    with pytest.raises(InvalidPage):
        position_of("DescribeInstances", {"NextToken": token})


@pytest.mark.parametrize("document", ["[]", "5", "{}", '["a"]', '["a", "b", "c"]', "[" * 500, "null", "x" * 5000])
def test_well_formed_garbage(document: str) -> None:
    with pytest.raises(InvalidPage):
        position_of("A", {"NextToken": base64.urlsafe_b64encode(document.encode()).decode().rstrip("=")})


@pytest.mark.parametrize(
    "position",
    [
        "",
        "2026-01-01T00:00:00/r-1/0",
        "2026-01-01T00:00:00+00:00/r-1/x",
        "2026-01-01T00:00:00+00:00/r-\0/0",
        "2026-01-01T00:00:00+00:00/r-\ud800/0",
        "0001-01-01T00:00:00+23:00/r-1/0",
        "9999-12-31T23:59:59-23:00/r-1/0",
    ],
)
def test_a_position_that_no_instance_has(position: str) -> None:
    with pytest.raises(InvalidPage):
        read_position(position)


def test_sizes() -> None:
    assert page_size({}) is None
    assert page_size({"NextToken": "x"}) == 1000
    assert page_size({"MaxResults": 5}) == 5
    assert page_size({"MaxResults": 1000}) == 1000
    assert page_size({"InstanceIds": ["i-1"]}, ids="InstanceIds") is None


@pytest.mark.parametrize("size", [-1, 0, 4, 1001])
def test_sizes_out_of_bounds(size: int) -> None:
    with pytest.raises(InvalidParameter):
        page_size({"MaxResults": size})


def test_a_size_with_ids() -> None:
    parameters: dict[str, Any] = {"MaxResults": 5, "InstanceIds": ["i-1"]}
    with pytest.raises(InvalidCombination):
        page_size(parameters, ids="InstanceIds")
