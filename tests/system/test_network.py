"""Real bridges, real dnsmasq, a real firewall, and guests that try what they should not."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.domain.names import bridge_name
from tests.labs.network_rows import GATEWAYS, INSTANCES, IPS, MACS, NETWORKS
from tests.labs.servers.guarded import wait_until
from tests.labs.system.network_lab import CLOUD_ID, LINK_LOCAL, OUTSIDE, UPLINK, NetworkLab

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[NetworkLab]:
    with NetworkLab(tmp_path) as lab:
        yield lab


def test_a_guest_gets_its_address_and_its_name(lab: NetworkLab) -> None:
    assert lab.ask("wire", NETWORKS, INSTANCES) == sorted(INSTANCES)
    guest = lab.plug(0, 100, MACS[0])
    domain = "pileus.internal"
    assert lab.lease(guest) == [IPS[0], GATEWAYS[0], GATEWAYS[0], domain, "ip-10-128-0-2", "3600"]
    for name in (f"ip-10-128-0-2.{domain}", f"{INSTANCES[0]}.{domain}"):
        assert IPS[0] in guest.run("busybox", "nslookup", name, GATEWAYS[0])
    # A name of another network is not told, and not asked for outside.
    assert not guest.succeeds("busybox", "nslookup", f"ip-10-128-4-2.{domain}", GATEWAYS[0])
    stranger = lab.plug(1, 100, "52:54:00:01:00:77")
    assert lab.lease(stranger) == []


def test_what_a_guest_reaches(lab: NetworkLab) -> None:
    lab.ask("wire", NETWORKS, INSTANCES)
    one, other = (lab.plug(n, 100 + n, MACS[n]) for n in (0, 1))
    for n, guest in enumerate((one, other)):
        assert lab.lease(guest)[0] == IPS[n]
        assert guest.pings(GATEWAYS[n])
        assert guest.pings(OUTSIDE)
        assert guest.connects(OUTSIDE, 80)
    assert not one.pings(IPS[1])
    assert not one.pings(GATEWAYS[1])
    assert not one.pings(UPLINK)
    lab.outside.run("ip", "route", "add", "10.128.0.0/9", "via", UPLINK)
    assert not lab.outside.pings(IPS[0])
    # With another network's address, nothing leaves.
    one.run("ip", "address", "add", "10.128.4.9/32", "dev", "eth0")
    assert not one.succeeds("ping", "-c", "1", "-W", "1", "-I", "10.128.4.9", OUTSIDE)


def test_the_machines_own_link_local_address_is_its_own(lab: NetworkLab) -> None:
    lab.ask("wire", NETWORKS, INSTANCES)
    guest = lab.plug(0, 100, MACS[0])
    lab.lease(guest)
    assert lab.node.connects(LINK_LOCAL, 80)
    assert lab.node.connects(LINK_LOCAL, 81)
    assert not guest.connects(LINK_LOCAL, 81)
    assert not guest.connects(LINK_LOCAL, 80)  # redirected, and no service listens yet
    assert not guest.pings(LINK_LOCAL)


def test_a_second_sweep_changes_nothing(lab: NetworkLab) -> None:
    lab.ask("wire", NETWORKS, INSTANCES)
    pids = lab.ask("pids")
    assert set(pids) == set(NETWORKS)
    files = sorted(p for p in (lab.state / "network").rglob("*") if p.name != "lock")
    before = [(p, p.stat().st_mtime_ns) for p in files if p.name not in ("log", "leases")]
    ruleset = lab.node.run("nft", "-a", "list", "ruleset")
    lab.ask("sweep")
    assert lab.ask("pids") == pids
    assert lab.node.run("nft", "-a", "list", "ruleset") == ruleset
    lab.ask("restart")
    lab.ask("sweep")
    assert lab.ask("pids") == pids
    assert [(p, p.stat().st_mtime_ns) for p, _ in before] == before


def test_new_leases_are_served_without_a_restart(lab: NetworkLab) -> None:
    lab.ask("wire", NETWORKS[:1], INSTANCES[:1])
    pids = lab.ask("pids")
    lab.ask("add_lease", NETWORKS[0], "10.128.0.3", "52:54:00:01:00:03", INSTANCES[0])
    lab.ask("wire", NETWORKS[:1], ())
    assert lab.ask("pids") == pids
    guest = lab.plug(0, 100, "52:54:00:01:00:03")
    assert lab.lease(guest)[0] == "10.128.0.3"


def test_what_is_launched_is_added_to_what_is_served(lab: NetworkLab) -> None:
    """dnsmasq reads the addition alone; the leases that are there already are neither read nor written again."""
    folder = lab.state / "network" / NETWORKS[0]
    lab.ask("sweep")
    before = [((folder / name).stat().st_mtime_ns, (folder / name).read_text()) for name in ("hosts", "names")]
    pids = lab.ask("pids")
    lab.ask("add_lease", NETWORKS[0], "10.128.0.3", "52:54:00:01:00:03", INSTANCES[0])
    reads = lab.ask("lease_reads")
    for _ in range(2):  # the doorbell is rung again
        assert lab.ask("wire", NETWORKS[:1], INSTANCES[:1]) == [INSTANCES[0]]
    lab.ask("sweep")
    assert lab.ask("lease_reads") - reads == 2, "the sweep read leases though nothing had changed"
    assert [((folder / n).stat().st_mtime_ns, (folder / n).read_text()) for n in ("hosts", "names")] == before
    assert lab.ask("pids") == pids
    guest = lab.plug(0, 100, "52:54:00:01:00:03")
    assert lab.lease(guest)[0] == "10.128.0.3"
    assert "10.128.0.3" in guest.run("busybox", "nslookup", "ip-10-128-0-3.pileus.internal", GATEWAYS[0])
    assert lab.ask("audit") == []
    (folder / "hosts.d" / "000001").unlink()
    lab.ask("sweep")
    assert "10.128.0.3" in (folder / "hosts").read_text()
    assert lab.lease(guest)[0] == "10.128.0.3"


def test_what_was_given_back_unnoticed_is_no_longer_served(lab: NetworkLab) -> None:
    """The doorbell of the host's GONE was lost: the sweep sees that there are fewer leases."""
    folder = lab.state / "network" / NETWORKS[0]
    lab.ask("add_lease", NETWORKS[0], "10.128.0.3", "52:54:00:01:00:03", INSTANCES[0])
    lab.ask("wire", NETWORKS[:1], INSTANCES[:1])
    lab.ask("remove_lease", "10.128.0.3")
    lab.ask("sweep")
    assert "10.128.0.3" not in (folder / "hosts").read_text()
    assert list((folder / "hosts.d").iterdir()) == []
    assert lab.lease(lab.plug(0, 100, "52:54:00:01:00:03")) == []


def test_what_died_or_was_changed_is_mended(lab: NetworkLab) -> None:
    lab.ask("sweep")
    pids = lab.ask("pids")
    bridge = bridge_name(CLOUD_ID, 100)
    mac = lab.node.run("ip", "-br", "link", "show", bridge).split()[2]
    lab.ask("kill", pids[NETWORKS[0]])
    wait_until(lambda: NETWORKS[0] not in lab.ask("pids"), deadline_s=5, what=lambda: "still there")
    lab.node.run("nft", "flush", "chain", "inet", f"pileus_{CLOUD_ID}", "from_guest")
    lab.node.run("ip", "link", "delete", bridge)
    lab.ask("sweep")
    after = lab.ask("pids")
    assert after[NETWORKS[1]] == pids[NETWORKS[1]]
    assert after[NETWORKS[0]] != pids[NETWORKS[0]]
    assert "drop" in lab.node.run("nft", "list", "chain", "inet", f"pileus_{CLOUD_ID}", "from_guest")
    assert lab.node.run("ip", "-br", "link", "show", bridge).split()[2] == mac
    assert lab.lease(lab.plug(0, 100, MACS[0]))[0] == IPS[0]


def test_an_existing_bridge_is_taken_over(lab: NetworkLab) -> None:
    bridge = bridge_name(CLOUD_ID, 100)
    lab.node.run("ip", "link", "add", "name", bridge, "type", "bridge")
    lab.node.run("ip", "address", "add", "10.99.0.1/24", "dev", bridge)
    assert lab.ask("wire", NETWORKS, INSTANCES) == sorted(INSTANCES)
    addresses = lab.node.run("ip", "-br", "address", "show", bridge).split()
    assert addresses[2:] == [f"{GATEWAYS[0]}/22"]


def test_a_network_without_a_row_goes(lab: NetworkLab) -> None:
    lab.ask("sweep")
    lab.ask("delete_network", NETWORKS[0])
    guest = lab.plug(0, 100, MACS[0])
    lab.ask("sweep")
    assert set(lab.ask("pids")) == {NETWORKS[1]}
    assert lab.node.succeeds("ip", "link", "show", bridge_name(CLOUD_ID, 100)), "a guest was cut off"
    guest.run("ip", "link", "delete", "eth0")
    lab.ask("wire", NETWORKS[:1], ())
    assert not lab.node.succeeds("ip", "link", "show", bridge_name(CLOUD_ID, 100))
    assert lab.node.succeeds("ip", "link", "show", bridge_name(CLOUD_ID, 101))


def test_destroy_leaves_nothing(lab: NetworkLab) -> None:
    lab.ask("sweep")
    assert lab.node.run("cat", "/proc/sys/net/ipv4/ip_forward").strip() == "1"
    lab.plug(0, 100, MACS[0])
    (lab.state / "network" / NETWORKS[0] / "pid").unlink()
    (lab.state / "pileus.db").rename(lab.folder / "gone.db")
    lab.ask("restart")
    for _ in range(2):
        lab.ask("destroy")
        assert lab.ask("pids") == {}
        assert lab.ask("processes") == []
        names = [line.split()[0].partition("@")[0] for line in lab.node.run("ip", "-br", "link").splitlines()]
        assert sorted(names) == ["g0", "lo", "up0"]
        assert lab.node.run("nft", "list", "ruleset") == ""
        assert lab.node.run("cat", "/proc/sys/net/ipv4/ip_forward").strip() == "0"
        assert not (lab.state / "network").exists()
