"""The metadata service as a guest sees it: through the redirect of its bridge, and only so."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.labs.network_rows import GATEWAYS, INSTANCES, MACS, NETWORKS
from tests.labs.system.network_lab import LINK_LOCAL, UPLINK, NetworkLab

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

PORT = 8775
_ASK = """
import sys, urllib.request, urllib.error
method, url, *headers = sys.argv[1:]
request = urllib.request.Request(url, method=method, headers=dict(h.split("=", 1) for h in headers))
try:
    answer = urllib.request.urlopen(request, timeout=10)
    print(answer.status, answer.read().decode())
except urllib.error.HTTPError as error:
    print(error.code)
"""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[NetworkLab]:
    with NetworkLab(tmp_path) as lab:
        lab.ask("wire", NETWORKS, INSTANCES)
        lab.ask("metadata")
        yield lab


def test_each_guest_gets_its_own_metadata(lab: NetworkLab) -> None:
    for n, instance in enumerate(INSTANCES):
        guest = lab.plug(n, 100 + n, MACS[n])
        lab.lease(guest)
        assert guest.get("/latest/meta-data/instance-id") == instance
        assert f'instance-id: "{instance}"' in guest.get("/nocloud/meta-data")


def test_token_and_proxies(lab: NetworkLab) -> None:
    guest = lab.plug(0, 100, MACS[0])
    lab.lease(guest)

    def ask(method: str, path: str, *headers: str) -> list[str]:
        return guest.run(sys.executable, "-c", _ASK, method, f"http://{LINK_LOCAL}{path}", *headers).split()

    status, token = ask("PUT", "/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds=60")
    assert status == "200"
    name = "/latest/meta-data/instance-id"
    assert ask("GET", name, f"X-aws-ec2-metadata-token={token}") == ["200", INSTANCES[0]]
    assert ask("GET", name, f"X-aws-ec2-metadata-token={token}0") == ["401"]
    assert ask("GET", name, "X-Forwarded-For=10.128.4.2") == ["403"]


def test_only_through_the_redirect(lab: NetworkLab) -> None:
    guest = lab.plug(0, 100, MACS[0])
    lab.lease(guest)
    assert guest.connects(LINK_LOCAL, 80)
    assert not guest.connects(LINK_LOCAL, PORT)
    assert not guest.connects(GATEWAYS[0], PORT)
    assert not guest.connects(GATEWAYS[1], PORT)
    assert not lab.outside.connects(UPLINK, PORT)
    assert lab.node.connects("127.0.0.1", PORT)


def test_an_address_without_an_instance_is_told_nothing(lab: NetworkLab) -> None:
    guest = lab.plug(0, 100, MACS[0])
    guest.run("ip", "address", "add", "10.128.0.77/22", "dev", "eth0")
    guest.run("ip", "route", "add", "default", "via", GATEWAYS[0])
    url = f"http://{LINK_LOCAL}/latest/meta-data/instance-id"
    assert guest.run(sys.executable, "-c", _ASK, "GET", url).split() == ["404"]
