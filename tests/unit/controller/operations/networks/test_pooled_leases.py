"""Which address is given out next, and when one is given out again."""

from collections.abc import Sequence

import pytest
from sqlalchemy import select

from controller.db.models import Lease
from controller.domain.errors import AddressInUse, NoFreeAddress
from controller.domain.lease_file import LeaseFormat, read_leases
from controller.domain.messages import ScheduleReservation
from controller.domain.networks import NetworkKind
from controller.domain.states import Event, State
from controller.operations.cloud import Transaction
from controller.operations.instances.actions import terminate
from controller.operations.networks import leases, networks
from controller.operations.networks.pinned_leases import import_leases
from scheduler.host_cache import HostCache
from scheduler.schedule import schedule
from tests.labs.cloud import TestCloud

LEASE_S = 600


class Pool:
    """A network of thirteen addresses on a cloud with real DHCP, as far as its rows are concerned."""

    def __init__(self, site: TestCloud, cidr: str = "10.9.0.0/28", kind: NetworkKind = NetworkKind.POOLED) -> None:
        self.site = site
        site.heartbeat(vcpus=1000, memory_mib=10**6, disk_gib=10**6)
        self.network = site.cloud.write(lambda tx: networks.create_network(tx, None, "pool", cidr, kind=kind).id)

    def launch(self, count: int, **wanted: str) -> list[str]:
        ids = self.site.launch(count, network_id=self.network, **wanted)
        for bell in self.site.bus.take(ScheduleReservation):
            self.site.cloud.write(lambda tx, b=bell: schedule(tx, [b.reservation_id], HostCache()))  # type: ignore[misc]
        return ids

    def ips(self, ids: Sequence[str]) -> list[str]:
        return [v.ip for v in self.site.views(ids)]

    def end(self, ids: Sequence[str]) -> None:
        self.site.cloud.write(lambda tx: terminate(tx, self.site.project_id, list(ids)))
        self.site.report(ids, Event.GONE)
        assert set(self.site.states(ids)) == {State.DELETED}

    def free(self) -> int:
        def count(tx: Transaction) -> int:
            return leases.free_addresses(tx, networks.get_network(tx, self.network))

        return self.site.cloud.read(count)

    def forget(self, ips: Sequence[str]) -> None:
        latest = self.site.cloud.read(lambda tx: max(filter(None, tx.session.scalars(select(Lease.free_after)))))
        self.site.cloud.write(lambda tx: leases.forgotten(tx, self.network, ips, latest))


@pytest.fixture
def served(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> TestCloud:
    return TestCloud.create(
        tmp_path_factory.mktemp("served"), database_url, network__driver="linux", network__lease_s=LEASE_S
    )


def test_an_address_rests_until_its_lease_has_run_out(served: TestCloud) -> None:
    pool = Pool(served)
    ids = pool.launch(13)
    (last,) = pool.ips([ids[4]])
    pool.end([ids[4]])
    assert pool.free() == 0
    with pytest.raises(NoFreeAddress, match="0 free addresses"):
        pool.launch(1)
    with pytest.raises(AddressInUse, match="DHCP for an instance that is gone"):
        pool.launch(1, address=last)
    served.clock.advance(LEASE_S - 1)
    with pytest.raises(NoFreeAddress):
        pool.launch(1)
    served.clock.advance(1)
    assert pool.free() == 1
    assert pool.ips(pool.launch(1)) == [last]
    assert pool.free() == 0


def test_an_address_that_dhcp_has_forgotten_is_free_at_once(served: TestCloud) -> None:
    pool = Pool(served)
    ids = pool.launch(13)
    one, other = pool.ips(ids[:2])
    pool.end(ids[:2])
    pool.forget([other])
    assert pool.free() == 1
    assert pool.ips(pool.launch(1)) == [other]
    pool.forget([one])
    assert pool.ips(pool.launch(1, address=one)) == [one]


def test_news_of_an_older_rest_ends_no_newer_one(served: TestCloud) -> None:
    pool = Pool(served)
    ids = pool.launch(1)
    ips = pool.ips(ids)
    pool.end(ids)
    old = served.cloud.read(lambda tx: tx.session.scalars(select(Lease.free_after)).one())
    assert old is not None
    served.clock.advance(LEASE_S)
    again = pool.launch(1, address=ips[0])
    pool.end(again)
    served.cloud.write(lambda tx: leases.forgotten(tx, pool.network, ips, old))
    assert pool.free() == 12


def test_untouched_ones_first_then_who_rested_longest(served: TestCloud) -> None:
    pool = Pool(served)
    ids = pool.launch(12)
    ips = pool.ips(ids)
    for n in (7, 3, 5):
        pool.end([ids[n]])
        served.clock.advance(LEASE_S)
    assert pool.ips(pool.launch(1)) == ["10.9.0.14"]
    assert [*pool.ips(pool.launch(1)), *pool.ips(pool.launch(1))] == [ips[7], ips[3]]


def test_a_pinned_lease_does_not_rest(served: TestCloud) -> None:
    pool = Pool(served, kind=NetworkKind.PINNED)
    file = read_leases(b"ip,mac,name,hosts\n10.9.0.5,02:00:00:00:00:01,,h1\n", LeaseFormat.CSV)
    served.cloud.write(lambda tx: import_leases(tx, pool.network, file))
    for _ in range(3):
        ids = pool.launch(1)
        assert pool.ips(ids) == ["10.9.0.5"]
        pool.end(ids)


def test_without_a_dhcp_server_nothing_rests(site: TestCloud) -> None:
    pool = Pool(site)
    ids = pool.launch(13)
    pool.end(ids)
    assert pool.free() == 13
