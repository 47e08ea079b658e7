"""Real dnsmasq: its files lost or damaged are made anew from the rows, and what has no row any more is dropped."""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.labs.network_rows import INSTANCES, IPS, MACS, NETWORKS
from tests.labs.servers.guarded import wait_until
from tests.labs.system.network_lab import NetworkLab, Space

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

NETWORK = NETWORKS[0]


class Served:
    """One network of the lab in which a guest has its address."""

    def __init__(self, lab: NetworkLab) -> None:
        self.lab = lab
        self.folder = lab.state / "network" / NETWORK
        lab.ask("sweep")
        self.guest: Space = lab.plug(0, 100, MACS[0])
        assert lab.lease(self.guest)[0] == IPS[0]
        lab.ask("has_run", INSTANCES[0])
        lab.ask("sweep")
        assert self.remembered() == [(MACS[0], IPS[0])]

    def remembered(self) -> list[tuple[str, str]]:
        """MAC and IP of what dnsmasq wrote down."""
        lines = [line.split() for line in (self.folder / "leases").read_text().splitlines()]
        return [(mac, ip) for _, mac, ip, *_ in lines]

    def pid(self) -> int:
        return int(self.lab.ask("pids")[NETWORK])

    def is_whole(self) -> bool:
        hosts = (self.folder / "hosts").read_text()
        added = list((self.folder / "hosts.d").iterdir())
        served = f"{MACS[0]},{IPS[0]},ip-10-128-0-2,3600\n"
        return self.remembered() == [(MACS[0], IPS[0])] and hosts == served and not added


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with NetworkLab(tmp_path) as lab:
        yield Served(lab)


def _remove_leases(folder: Path) -> None:
    (folder / "leases").unlink()


def _truncate_leases(folder: Path) -> None:
    content = (folder / "leases").read_bytes()
    (folder / "leases").write_bytes(content[: len(content) // 2])


def _empty_leases(folder: Path) -> None:
    (folder / "leases").write_bytes(b"")


def _spoil_leases(folder: Path) -> None:
    (folder / "leases").write_bytes(b"\x00\xff\xfe garbage\n" * 100)


def _remove_hosts(folder: Path) -> None:
    (folder / "hosts").unlink()


def _truncate_hosts(folder: Path) -> None:
    (folder / "hosts").write_bytes(b"52:54:00:")


def _spoil_hosts(folder: Path) -> None:
    (folder / "hosts").write_bytes(b"\xff\xfe\x00 garbage\n")


def _spoil_addition(folder: Path) -> None:
    (folder / "hosts.d" / "000001").write_bytes(b"\xff\xfe\x00 garbage\n")


def _remove_folder(folder: Path) -> None:
    shutil.rmtree(folder)


def _remove_all_networks(folder: Path) -> None:
    for network in folder.parent.glob("net-*"):
        _remove_folder(network)


DAMAGES = (
    _remove_leases,
    _truncate_leases,
    _empty_leases,
    _spoil_leases,
    _remove_hosts,
    _truncate_hosts,
    _spoil_hosts,
    _spoil_addition,
    _remove_folder,
    _remove_all_networks,
)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.__name__.strip("_"))
@pytest.mark.parametrize("dnsmasq", ["runs", "killed"])
def test_a_sweep_makes_them_anew(served: Served, damage: Callable[[Path], None], dnsmasq: str) -> None:
    other = served.lab.ask("pids")[NETWORKS[1]]
    pid = served.pid()
    if dnsmasq == "killed":
        served.lab.ask("kill", pid)
        wait_until(lambda: NETWORK not in served.lab.ask("pids"), deadline_s=5, what=lambda: "still there")
    damage(served.folder)
    served.lab.ask("sweep")
    assert served.is_whole()
    if damage is not _remove_all_networks:
        assert served.lab.ask("pids")[NETWORKS[1]] == other
    assert len(served.lab.ask("processes")) == 2
    assert served.lab.lease(served.guest)[0] == IPS[0]
    pids = served.lab.ask("pids")
    served.lab.ask("sweep")
    assert served.lab.ask("pids") == pids


def test_what_is_given_back_is_forgotten_before_it_is_free(served: Served) -> None:
    pid = served.pid()
    served.lab.ask("give_back", INSTANCES[0])
    assert served.lab.ask("quarantined") == [IPS[0]]
    assert served.remembered() == [(MACS[0], IPS[0])]
    served.lab.ask("wire", [NETWORK], [])
    assert served.remembered() == []
    assert served.lab.ask("quarantined") == []
    assert served.pid() == pid
    assert served.lab.lease(served.guest) == []


def test_what_is_not_forgotten_is_not_free(served: Served) -> None:
    """dnsmasq stands still: it may wake up and remember."""
    served.lab.ask("give_back", INSTANCES[0])
    served.lab.ask("signal", served.pid(), "SIGSTOP")
    try:
        served.lab.ask("wire", [NETWORK], [])
        assert served.lab.ask("quarantined") == [IPS[0]]
    finally:
        served.lab.ask("signal", served.pid(), "SIGCONT")
    wait_until(lambda: served.remembered() == [], deadline_s=5, what=lambda: "it remembers still")
    served.lab.ask("sweep")
    assert served.lab.ask("quarantined") == []


def test_strangers_of_an_older_release_are_forgotten(served: Served) -> None:
    """Entries that instances left behind whose rows are gone, many of them: dnsmasq is started once."""
    served.lab.ask("kill", served.pid())
    until = int(time.time()) + 3000
    with (served.folder / "leases").open("a") as file:
        file.writelines(
            f"{until} 52:54:00:09:{n >> 8:02x}:{n & 255:02x} 10.128.{n >> 8}.{n & 255} old *\n" for n in range(256, 600)
        )
    served.lab.ask("sweep")
    assert served.remembered() == [(MACS[0], IPS[0])]
