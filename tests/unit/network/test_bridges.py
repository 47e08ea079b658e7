"""Names and addresses of bridges."""

import re

from hypothesis import given
from hypothesis import strategies as st

from controller.conf.settings import Settings
from network.bridges import gateway_mac, is_host_local, owned


@given(cloud=st.from_regex(r"[0-9a-f]{8}", fullmatch=True), vlan=st.integers(1, 4094))
def test_gateway_mac_is_local_unicast_and_stable(cloud: str, vlan: int) -> None:
    mac = gateway_mac(cloud, vlan)
    assert re.fullmatch(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", mac)
    assert int(mac[:2], 16) & 0b11 == 0b10
    assert mac == gateway_mac(cloud, vlan) != gateway_mac(cloud, vlan + 1)


def test_only_our_own_interfaces_are_ours() -> None:
    links = ["lo", "eth0", "pl0a1bb100", "pl0a1bv100", "pl0a1bb", "pl0a1bbx", "pl0a1bt01234567", "pl0a1cb100"]
    assert owned(links, "0a1b2c3d") == {"pl0a1bb100": 100, "pl0a1bv100": 100}


def test_without_a_trunk_networks_are_host_local() -> None:
    assert is_host_local(Settings())
