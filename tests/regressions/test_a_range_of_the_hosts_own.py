"""A network whose range the host has a part in took the route to the host's own gateway."""

import pytest

from controller.conf.settings import Settings
from controller.domain.errors import HostError
from controller.programs import ip
from network import bridges
from network.segment import Segment


def _link(name: str, *addresses: str) -> ip.Link:
    return ip.Link(name, "", True, "", "", frozenset(addresses), False)


@pytest.mark.parametrize("address", ["192.0.2.2/24", "192.0.2.9/32", "192.0.0.1/16"])
def test_it_is_refused_before_anything_is_made(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[object] = []
    monkeypatch.setattr(ip, "add_bridge", ran.append)
    monkeypatch.setattr(ip, "configure_bridge", lambda *words, **_: ran.append(words))
    segment = Segment.of("0a1b2c3d", "net-1", 100, "192.0.2.0/28")
    links = {"lo": _link("lo", "127.0.0.1/8"), "eth0": _link("eth0", "198.51.100.1/24", address)}
    with pytest.raises(HostError, match=rf"192\.0\.2\.0/28 overlaps {address} of eth0"):
        bridges.ensure(segment, Settings(), links)
    assert ran == []
