"""The audit of a real network node: whatever is changed behind the service's back is told, and mended by a repair."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controller.domain.names import bridge_name, nft_table
from tests.labs.network_rows import INSTANCES, IPS, MACS, NETWORKS
from tests.labs.servers.guarded import wait_until
from tests.labs.system.network_lab import CLOUD_ID, NetworkLab

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

TABLE = nft_table(CLOUD_ID)
STRANGER = "52:54:00:99:00:99,10.128.0.99,stranger,3600\n"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetworkLab]:
    with NetworkLab(tmp_path_factory.mktemp("audit")) as lab:
        lab.ask("wire", NETWORKS, INSTANCES)
        lab.ask("activate")
        yield lab


@pytest.fixture
def clean(lab: NetworkLab) -> NetworkLab:
    assert lab.ask("audit") == []
    return lab


def folder(lab: NetworkLab) -> Path:
    return lab.state / "network" / NETWORKS[0]


def add_to_hosts(lab: NetworkLab) -> None:
    path = folder(lab) / "hosts"
    path.write_text(path.read_text() + STRANGER)


def empty_hosts(lab: NetworkLab) -> None:
    (folder(lab) / "hosts").write_text("")


def lower_lease_max(lab: NetworkLab) -> None:
    path = folder(lab) / "dnsmasq.conf"
    path.write_text(re.sub("dhcp-lease-max=.*", "dhcp-lease-max=150", path.read_text()))


def kill_dnsmasq(lab: NetworkLab) -> None:
    lab.ask("kill", lab.ask("pids")[NETWORKS[0]])
    wait_until(lambda: NETWORKS[0] not in lab.ask("pids"), deadline_s=10, what=lambda: "still there")


def leave_a_folder(lab: NetworkLab) -> None:
    """A folder without an owner."""
    (lab.state / "network" / "net-0000000000000dead").mkdir()


def nft(*words: str) -> Callable[[NetworkLab], None]:
    return lambda lab: print(lab.node.run("nft", *words))


BREAKS: dict[str, tuple[Callable[[NetworkLab], None], str]] = {
    "hosts file edited": (add_to_hosts, "DHCP serves what has no row: 52:54:00:99:00:99,10.128.0.99,stranger"),
    "hosts file emptied": (empty_hosts, f"1 of its leases are not served as they are: {IPS[0]} ({MACS[0]})"),
    "lease limit lowered": (lower_lease_max, "its dhcp-lease-max is 150, 10.128.0.0/22 has 1021"),
    "dnsmasq killed": (kill_dnsmasq, "no dnsmasq processes serve it"),
    "network without a row": (leave_a_folder, "it has no row"),
    "chain flushed": (nft("flush", "chain", "inet", TABLE, "from_guest"), "- chain from_guest: meta nfproto ipv6 drop"),
    "rule added": (nft("insert", "rule", "inet", TABLE, "forward", "accept"), "+ chain forward: accept"),
    "table deleted": (nft("delete", "table", "inet", TABLE), "its table is not as it should be: - "),
    "element deleted": (
        nft("delete", "element", "inet", TABLE, "gateways", f"{{ {bridge_name(CLOUD_ID, 100)} . 10.128.0.1 }}"),
        "set gateways: elements",
    ),
    "bridge taken down": (
        lambda lab: print(lab.node.run("ip", "link", "set", bridge_name(CLOUD_ID, 100), "down")),
        "its bridge is not there",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_each_change_is_told_and_mended(clean: NetworkLab, name: str) -> None:
    change, words = BREAKS[name]
    change(clean)
    told = clean.ask("audit")
    assert any(words in what for what in told), told
    assert clean.ask("mend") == []
    assert clean.ask("audit") == []
    assert set(clean.ask("pids")) == set(NETWORKS)


def test_a_node_that_cannot_tell_says_so(clean: NetworkLab) -> None:
    stray = clean.state / "network" / "net-0000000000000dead"
    (stray / "hosts").mkdir(parents=True)  # where a file is expected
    (problem,) = clean.ask("audit")
    assert "Is a directory" in problem
    assert clean.ask("mend") == []


def test_a_lease_that_was_given_is_as_its_row(clean: NetworkLab) -> None:
    guest = clean.plug(0, 100, MACS[0])
    assert clean.lease(guest)[0] == IPS[0]
    wait_until(lambda: (folder(clean) / "leases").exists(), deadline_s=10, what=lambda: "no lease file")
    assert clean.ask("audit") == []
    path = folder(clean) / "leases"
    path.write_text(path.read_text().replace(IPS[0], "10.128.0.77"))
    (what,) = clean.ask("audit")
    assert f"{MACS[0]},10.128.0.77" in what
