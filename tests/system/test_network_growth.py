"""A network grows under its guests, up to 65,533 addresses: no guest loses an address or a connection."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from controller.domain.names import bridge_name
from tests.labs.network_rows import GATEWAYS, INSTANCES, IPS, MACS, NETWORKS
from tests.labs.servers.guarded import wait_until
from tests.labs.system.network_lab import CLOUD_ID, OUTSIDE, NetworkLab, Space

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

NETWORK = NETWORKS[0]
FAR = ("10.128.9.9", "52:54:00:01:09:09")
MANY = 20_000
# Half a request, the rest when told to: the connection lasts in between.
_TALK = f"""
import socket
with socket.create_connection(("{OUTSIDE}", 80), 30) as connection:
    connection.sendall(b"GET / HTTP/1.0\\r\\n")
    print("half", flush=True)
    input()
    connection.sendall(b"\\r\\n")
    print(connection.makefile("rb").readline().decode())
"""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[NetworkLab]:
    """With one network, so that it has room to grow."""
    with NetworkLab(tmp_path) as lab:
        lab.ask("delete_network", NETWORKS[1])
        lab.ask("sweep")
        yield lab


@contextmanager
def talk(guest: Space) -> Iterator["subprocess.Popen[str]"]:
    """A guest's connection to the outside."""
    argv = [*guest.inside, sys.executable, "-c", _TALK]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "half\n"
            yield process
        finally:
            process.kill()


def test_a_guest_keeps_address_and_connection(lab: NetworkLab) -> None:
    guest = lab.plug(0, 100, MACS[0])
    assert lab.lease(guest)[0] == IPS[0]
    options = lab.state / "network" / NETWORK / "dnsmasq.conf"
    assert "dhcp-lease-max=1021\n" in options.read_text()
    with talk(guest) as connection:
        lab.ask("resize", NETWORK, "10.128.0.0/16")
        lab.ask("wire", [NETWORK], [])
        answer, _ = connection.communicate("\n", timeout=30)
        assert "200 OK" in answer
    assert "dhcp-lease-max=65533\n" in options.read_text()
    assert "dhcp-range=10.128.0.0,static,255.255.0.0,3600\n" in options.read_text()
    addresses = lab.node.run("ip", "-br", "address", "show", bridge_name(CLOUD_ID, 100)).split()
    assert addresses[2:] == [f"{GATEWAYS[0]}/16"]
    assert "10.128.0.0/16" in lab.node.run("nft", "list", "set", "inet", f"pileus_{CLOUD_ID}", "ranges")
    # What the guest knows is the old size; the new part is reached all the same, through the gateway.
    lab.ask("add_lease", NETWORK, *FAR, INSTANCES[0])
    lab.ask("wire", [NETWORK], [])
    far = lab.plug(1, 100, FAR[1])
    assert lab.lease(far)[0] == FAR[0]
    assert guest.pings(FAR[0])
    assert far.pings(OUTSIDE)
    assert lab.lease(guest)[0] == IPS[0]
    assert f"{IPS[0]}/16" in guest.run("ip", "-br", "address", "show", "eth0")
    pids = lab.ask("pids")
    lab.ask("sweep")
    assert lab.ask("pids") == pids


def test_tens_of_thousands_of_leases_are_served(lab: NetworkLab) -> None:
    lab.ask("resize", NETWORK, "10.128.0.0/16")
    lab.ask("fill", NETWORK, MANY)
    lab.ask("wire", [NETWORK], [])
    folder = lab.state / "network" / NETWORK
    assert (folder / "hosts").read_text().count("\n") == MANY + 1
    guest = lab.plug(0, 100, f"52:54:00:01:{MANY >> 8:02x}:{MANY & 255:02x}")

    def has_address() -> bool:
        return lab.lease(guest)[:1] == [f"10.128.{MANY >> 8}.{MANY & 255}"]

    wait_until(has_address, deadline_s=120, what=lambda: (folder / "log").read_text()[-2000:])
    pids = lab.ask("pids")
    lab.ask("add_lease", NETWORK, "10.128.200.9", "52:54:00:01:c8:09", INSTANCES[0])
    lab.ask("wire", [NETWORK], INSTANCES[:1])
    assert lab.ask("pids") == pids
    assert (folder / "hosts").read_text().count("\n") == MANY + 1, "all were written again for one"
    late = lab.plug(1, 100, "52:54:00:01:c8:09")
    wait_until(lambda: lab.lease(late)[:1] == ["10.128.200.9"], deadline_s=120, what=lambda: "the late one has none")
