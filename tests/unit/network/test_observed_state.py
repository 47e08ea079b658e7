"""What a network node's firewall and files are held against, without the node."""

from pathlib import Path

import pytest

from controller.domain.errors import PoisonMessage
from controller.domain.messages import (
    NetworkObservation,
    ObserveHost,
    ObserveNetworks,
    ReconcileNetworks,
)
from network import observed_state
from network.service import NetworkService
from tests.labs.network_rows import make_cloud

LISTING = """table inet t {
	set s {
		type ifname . ipv4_addr
		elements = { "b" . 10.0.0.1,
			"a" . 10.0.0.2 }
	}
	chain c {
		type filter hook input priority filter; policy accept;
		ip saddr @s drop
		accept
	}
}
"""


def test_differing_rules_are_named_with_their_chain() -> None:
    rules = observed_state._rules(LISTING)
    assert 'set s: elements = ("a" . 10.0.0.2, "b" . 10.0.0.1)' in rules
    assert rules[-2:] == ["chain c: ip saddr @s drop", "chain c: accept"]


def test_the_order_of_a_sets_elements_means_nothing() -> None:
    turned = LISTING.replace("10.0.0.1", "X").replace("10.0.0.2", "10.0.0.1").replace("X", "10.0.0.2")
    turned = turned.replace('"b"', "X").replace('"a"', '"b"').replace("X", '"a"')
    assert observed_state._rules(turned) == observed_state._rules(LISTING)


def test_what_is_too_much_too_little_or_out_of_place() -> None:
    there = observed_state._rules(LISTING)
    assert observed_state._differences(there, there) == ()
    assert observed_state._differences(there[:-1], there) == ("- chain c: accept",)
    assert observed_state._differences([*there, "chain c: drop"], there) == ("+ chain c: drop",)
    assert observed_state._differences([*there[:-2], there[-1], there[-2]], there) == (
        "+ chain c: accept (out of its place)",
    )
    assert observed_state._differences([], ["x"] * 50) == ("- x",)
    assert len(observed_state._differences([], [str(n) for n in range(50)])) == 20


def test_given_leases_are_read_leniently() -> None:
    lines = ["1700000000 52:54:00:01:00:02 10.0.0.2 ip-10-0-0-2 *", "duid 00:01", "rubbish", ""]
    assert observed_state._given(lines) == ["52:54:00:01:00:02,10.0.0.2"]


def test_networks_that_are_rows_only(tmp_path: Path) -> None:
    service = NetworkService(make_cloud(tmp_path))
    for question in (ObserveNetworks(), ReconcileNetworks()):
        assert service.answer(question) == NetworkObservation(host_side=False)
    with pytest.raises(PoisonMessage):
        service.answer(ObserveHost("h1"))
