"""What is free on a machine."""

import socket

import netaddr
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.cli.free_resources import RANGES, free_port, free_range, port_is_free
from controller.domain.errors import ConfigurationError


@given(st.lists(st.builds(lambda a, p: netaddr.IPNetwork((a, p)).cidr, st.integers(0, 2**32 - 1), st.integers(4, 32))))
def test_a_range_overlaps_nothing_or_there_is_none(used: list[netaddr.IPNetwork]) -> None:
    taken = netaddr.IPSet(used)
    try:
        found = free_range(used)
    except ConfigurationError:
        assert all(not taken.isdisjoint(netaddr.IPSet([r])) for r in RANGES)
    else:
        assert taken.isdisjoint(netaddr.IPSet([found]))


def test_the_default_where_it_is_free() -> None:
    assert free_range([netaddr.IPNetwork("192.168.1.0/24")]) == "10.128.0.0/10"
    assert free_range([netaddr.IPNetwork("10.0.0.0/8")]) == "172.16.0.0/12"


def test_a_port_that_is_taken_is_passed_over() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        assert not port_is_free(taken)
        assert free_port(taken) > taken
        assert free_port(taken, avoid=range(taken, taken + 3)) >= taken + 3


def test_no_port_at_all() -> None:
    with pytest.raises(ConfigurationError, match="--port"):
        free_port(65535, avoid=[65535])
