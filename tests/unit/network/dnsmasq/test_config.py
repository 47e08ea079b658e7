"""What dnsmasq is told."""

from dataclasses import replace
from pathlib import Path

import netaddr
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.conf.settings import Network, Settings
from controller.domain.errors import ConfigurationError
from controller.domain.names import instance_hostname
from network.dnsmasq.config import known_hosts, lease_max, names, options
from network.segment import HeldLease, Segment

GOLDEN = Path(__file__).parents[1] / "golden"
SEGMENT = Segment.of("0a1b2c3d", "net-0123456789abcdef0", 100, "10.128.0.0/22")
LEASES = (
    HeldLease("10.128.0.9", "52:54:00:01:00:09", "i-0000000000000000b"),
    HeldLease("10.128.0.2", "52:54:00:01:00:02", "i-0000000000000000a"),
)


def settings(**network: object) -> Settings:
    return replace(Settings(), network=replace(Network(), **network))  # type: ignore[arg-type]


@given(prefix=st.integers(16, 28), number=st.integers(0, 2**16 - 1))
def test_every_address_a_guest_can_have_has_a_lease(prefix: int, number: int) -> None:
    cidr = netaddr.IPNetwork(f"{netaddr.IPAddress(number << 16)}/{prefix}")
    # All but the network, the gateway and the broadcast address.
    assert lease_max(str(cidr)) == cidr.last - cidr.first + 1 - 3


@pytest.mark.parametrize(("cidr", "leases"), [("10.0.0.0/16", 65533), ("10.0.0.0/24", 253), ("10.0.0.0/28", 13)])
def test_lease_max(cidr: str, leases: int) -> None:
    assert lease_max(cidr) == leases
    segment = Segment.of("0a1b2c3d", "net-0123456789abcdef0", 1, cidr)
    assert f"\ndhcp-lease-max={leases}\n" in options(segment, Settings(), Path("/x"), "nobody")


def test_options_are_golden() -> None:
    text = options(SEGMENT, settings(dns_servers=("9.9.9.9", "2620:fe::fe")), Path("/state/network/net"), "dnsmasq")
    assert text == (GOLDEN / "dnsmasq.conf").read_text()


def test_without_servers_the_hosts_own_are_asked() -> None:
    text = options(SEGMENT, Settings(), Path("/x"), "dnsmasq")
    assert "no-resolv" not in text
    assert "server=" not in text.replace("dns-server,", "")


def test_known_hosts_and_names_do_not_depend_on_the_order() -> None:
    assert known_hosts(LEASES, 3600) == (
        "52:54:00:01:00:02,10.128.0.2,ip-10-128-0-2,3600\n52:54:00:01:00:09,10.128.0.9,ip-10-128-0-9,3600\n"
    )
    assert known_hosts(LEASES, 60) == known_hosts(LEASES[::-1], 60)
    assert names(LEASES[1:], "cloud.example") == (
        "10.128.0.2 ip-10-128-0-2.cloud.example ip-10-128-0-2 i-0000000000000000a.cloud.example i-0000000000000000a\n"
    )


def test_host_name() -> None:
    assert instance_hostname("10.128.0.5") == "ip-10-128-0-5"


@pytest.mark.parametrize("domain", ["", "-a", "a..b", "a b", "a\nserver=1.2.3.4", "a/b", "a" * 64, "ab.c" * 60])
def test_a_domain_that_is_none_is_refused(domain: str) -> None:
    with pytest.raises(ConfigurationError):
        options(SEGMENT, settings(dns_domain=domain), Path("/x"), "nobody")


@pytest.mark.parametrize("server", ["x", "1.2.3.4\nuser=root", "1.2.3.4#53,x"])
def test_a_server_that_is_none_is_refused(server: str) -> None:
    with pytest.raises(ConfigurationError):
        options(SEGMENT, settings(dns_servers=(server,)), Path("/x"), "nobody")


def test_the_name_of_a_lease_is_the_hosts_name_and_comes_first() -> None:
    named = replace(LEASES[1], dns_name="web-1")
    assert known_hosts([named], 60) == "52:54:00:01:00:02,10.128.0.2,web-1,60\n"
    assert names([named], "cloud.example") == (
        "10.128.0.2 web-1.cloud.example web-1 ip-10-128-0-2.cloud.example ip-10-128-0-2"
        " i-0000000000000000a.cloud.example i-0000000000000000a\n"
    )
