"""Addresses of guests on a removed host, pooled and pinned, on the three real engines."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.domain.errors import AddressInUse, InUse, LeasesRefused, NoFreeAddress
from controller.domain.guests import Power
from controller.domain.messages import GuestState
from controller.domain.states import Event, State
from controller.operations.audit.audit import audit
from controller.operations.hosts import force_removal, lost_hosts
from controller.operations.instances.launch import launch
from controller.operations.networks import networks, quarantine
from tests.labs.cloud import TestCloud, place
from tests.labs.pinned_network import PinnedSite

pytestmark = pytest.mark.functional

PINNED = """\
ip,mac,name,hosts
10.20.0.10,52:54:00:aa:00:10,web-1,h1{more}
10.20.0.11,52:54:00:aa:00:11,,h2
10.20.0.12,52:54:00:aa:00:12,,h2 h3
"""
KEPT = "10.20.0.10"


@pytest.fixture
def site(tmp_path: Path, database_url: str) -> Iterator[TestCloud]:
    made = TestCloud.create(tmp_path, database_url, database__retries=30, controller__open_registration="true")
    yield made
    made.close()


def lose(site: TestCloud, *, fenced: bool = False) -> None:
    """h1 is given up; the other hosts are well."""
    site.clock.advance(3600)
    site.cloud.write(lost_hosts.mark_lost)
    for host in ("h2", "h3"):
        site.heartbeat(host)
    site.cloud.write(lambda tx: force_removal.force_remove(tx, "h1", fenced=fenced))


def kept(site: TestCloud) -> list[tuple[str, str, str]]:
    return [(q.ip, q.host, q.instance) for q in site.cloud.read(quarantine.list_quarantined)]


def running(site: TestCloud, **request: object) -> tuple[str, str]:
    """An instance that runs, and its address."""
    (one,) = site.launch(1, **request)
    place(site)
    site.report([one], Event.RUNNING)
    assert site.states([one]) == [State.ACTIVE]
    return one, site.views([one])[0].ip


def test_pooled(site: TestCloud) -> None:
    site.heartbeat("h1")
    (one, ip), (two, other_ip) = running(site), running(site)
    lose(site)
    assert kept(site) == [(ip, "h1", one), (other_ip, "h1", two)]
    assert site.cloud.read(quarantine.count) == 2
    with pytest.raises(AddressInUse, match="host h1, which was removed"):
        site.cloud.write(lambda tx: launch(tx, site.request(1, address=ip)))
    again = site.launch(5)
    place(site)
    assert site.states(again) == [State.BUILDING] * 5
    assert not {ip, other_ip} & {v.ip for v in site.views(again)}
    assert site.cloud.read(audit) == []
    guests = (GuestState(one, 9, Power.RUNNING),)
    site.heartbeat(epoch=1, sequence=5)  # it registers again, with the epoch of its earlier life
    site.heartbeat(epoch=3, sequence=6, guests=guests)
    assert kept(site) == [(ip, "h1", one)]
    site.heartbeat(epoch=3, sequence=7)
    assert kept(site) == []
    assert site.cloud.write(lambda tx: launch(tx, site.request(1, address=ip))).instances


def test_pinned(site: TestCloud) -> None:
    """A lease in use cannot be imported without its host: that goes with the host, if others may carry the lease."""
    pinned = PinnedSite(site)
    pinned.take(PINNED.format(more=""))
    one, ip = running(site, network_id=pinned.network, address=KEPT)
    assert (site.instance(one).host_id, ip) == ("h1", KEPT)
    with pytest.raises(InUse, match="1 pinned lease"):
        lose(site)
    assert (kept(site), site.states([one])) == ([], [State.UNKNOWN])
    with pytest.raises(LeasesRefused):
        pinned.take(PINNED.format(more="").replace("web-1,h1", "web-1,h2"))
    pinned.take(PINNED.format(more=" h2"))
    lose(site)
    assert kept(site) == [(KEPT, "h1", one)]
    assert {r.ip: r.hosts for r in pinned.rows()} == {
        KEPT: ("h2",),
        "10.20.0.11": ("h2",),
        "10.20.0.12": ("h2", "h3"),
    }
    with pytest.raises(AddressInUse, match="host h1, which was removed"):
        site.cloud.write(lambda tx: launch(tx, site.request(1, network_id=pinned.network, address=KEPT)))
    others = [running(site, network_id=pinned.network)[1] for _ in range(2)]
    assert sorted(others) == ["10.20.0.11", "10.20.0.12"]
    with pytest.raises(NoFreeAddress):
        site.launch(1, network_id=pinned.network)
    without = "\n".join(line for line in PINNED.format(more="").splitlines() if KEPT not in line)
    with pytest.raises(LeasesRefused, match=f"{KEPT} is in use by {one} and cannot be removed"):
        pinned.take(without, prune=True)
    with pytest.raises(LeasesRefused, match="its MAC address 52:54:00:aa:00:10 cannot change"):
        pinned.take(PINNED.format(more="").replace("00:10,web-1,h1", "00:20,web-1,h2"))
    with pytest.raises(InUse):
        site.cloud.write(lambda tx: networks.delete_network(tx, pinned.network))
    assert site.cloud.read(audit) == []
    assert site.cloud.write(lambda tx: quarantine.fence(tx, "h1")) == 1
    taken, ip = running(site, network_id=pinned.network, address=KEPT)
    assert (site.instance(taken).host_id, ip) == ("h2", KEPT)


def test_pinned_and_fenced_at_once(site: TestCloud) -> None:
    pinned = PinnedSite(site)
    pinned.take(PINNED.format(more=" h3"))
    running(site, network_id=pinned.network, address=KEPT)
    lose(site, fenced=True)
    assert kept(site) == []
    again, ip = running(site, network_id=pinned.network, address=KEPT)
    assert (site.instance(again).host_id, ip) == ("h3", KEPT)
