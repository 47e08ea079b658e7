"""Networks grow, and only as they can; what cannot be is said."""

from collections.abc import Callable

import pytest
from sqlalchemy import select, update

from controller.db.models import Lease, Network
from controller.domain.errors import CidrOverlaps, CloudError, Conflict, InvalidParameter, NetworkNotFound
from controller.domain.lease_file import LeaseFormat, read_leases
from controller.domain.messages import PrepareNetworks, ScheduleReservation
from controller.domain.networks import NetworkKind
from controller.operations.audit.audit import audit
from controller.operations.networks import networks
from controller.operations.networks.pinned_leases import import_leases
from scheduler.host_cache import HostCache
from scheduler.schedule import schedule
from tests.labs.cloud import TestCloud


@pytest.fixture
def make(site: TestCloud) -> Callable[..., str]:
    site.heartbeat(vcpus=1000, memory_mib=10**6, disk_gib=10**6)

    def create(cidr: str, kind: NetworkKind = NetworkKind.POOLED, name: str = "grows") -> str:
        made = site.cloud.write(lambda tx: networks.create_network(tx, None, name, cidr, kind=kind).id)
        site.bus.take(PrepareNetworks)
        return made

    return create


def resize(site: TestCloud, network_id: str, cidr: str) -> str:
    return site.cloud.write(lambda tx: networks.resize_network(tx, network_id, cidr).cidr)


def fill(site: TestCloud, network_id: str, count: int) -> list[str]:
    """The addresses of so many new instances."""
    ids = site.launch(count, network_id=network_id)
    for bell in site.bus.take(ScheduleReservation):
        site.cloud.write(lambda tx, b=bell: schedule(tx, [b.reservation_id], HostCache()))  # type: ignore[misc]
    return [v.ip for v in site.views(ids)]


def test_a_full_network_grows_and_goes_on(site: TestCloud, make: Callable[..., str]) -> None:
    network = make("10.9.0.0/28")
    first = fill(site, network, 13)
    with pytest.raises(CloudError, match="0 free addresses"):
        site.launch(1, network_id=network)
    site.bus.take(PrepareNetworks)
    before = site.cloud.read(lambda tx: {(r.ip, r.mac, r.instance_id) for r in tx.session.scalars(select(Lease))})
    assert resize(site, network, "10.9.0.0/26") == "10.9.0.0/26"
    assert site.bus.take(PrepareNetworks) == [PrepareNetworks((network,))]
    second = fill(site, network, 61 - 13)
    assert sorted(first + second) == sorted(f"10.9.0.{n}" for n in range(2, 63))
    after = site.cloud.read(lambda tx: {(r.ip, r.mac, r.instance_id) for r in tx.session.scalars(select(Lease))})
    assert before < after
    assert len({mac for _, mac, _ in after}) == 61
    assert site.cloud.read(audit) == []


def test_its_own_range_changes_nothing(site: TestCloud, make: Callable[..., str]) -> None:
    network = make("10.9.0.0/28")
    assert resize(site, network, "10.9.0.0/28") == "10.9.0.0/28"
    assert site.bus.sent == []


@pytest.mark.parametrize(
    ("cidr", "error", "says"),
    [
        ("", InvalidParameter, "not a CIDR"),
        ("nonsense", InvalidParameter, "not a CIDR"),
        ("10.9.1.0/24; rm -rf /", InvalidParameter, "not a CIDR"),
        ("10.9.1.0/33", InvalidParameter, "not a CIDR"),
        ("2001:db8::/64", InvalidParameter, "must be IPv4"),
        ("10.9.1.1/23", InvalidParameter, "host bits"),
        ("10.9.0.0/15", InvalidParameter, "between /16 and /28|host bits"),
        ("10.9.1.0/26", InvalidParameter, "smaller than 10.9.1.0/24, and a network can only grow"),
        ("10.77.0.0/22", InvalidParameter, "does not contain 10.9.1.0/24"),
        ("10.9.0.0/22", CidrOverlaps, "overlaps 10.9.2.0/24"),
        ("10.9.0.0/23", InvalidParameter, "no longer be 10.9.1.1; the largest .* is 10.9.1.0/24"),
    ],
)
def test_refused_networks(
    site: TestCloud, make: Callable[..., str], cidr: str, error: type[CloudError], says: str
) -> None:
    network = make("10.9.1.0/24")
    make("10.9.2.0/24", name="next door")
    with pytest.raises(error, match=says):
        resize(site, network, cidr)
    assert site.cloud.read(lambda tx: networks.get_network(tx, network).cidr) == "10.9.1.0/24"
    assert site.bus.sent == []


def test_no_such_network(site: TestCloud) -> None:
    with pytest.raises(NetworkNotFound):
        resize(site, "net-00000000000000000", "10.9.0.0/24")


def test_a_pinned_one_grows_and_makes_no_address(site: TestCloud, make: Callable[..., str]) -> None:
    network = make("10.9.0.0/28", NetworkKind.PINNED)
    resize(site, network, "10.9.0.0/24")
    text = b"ip,mac,name,hosts\n10.9.0.200,02:00:00:00:00:01,,h1\n"
    file = read_leases(text, LeaseFormat.CSV)
    site.cloud.write(lambda tx: import_leases(tx, network, file))
    assert fill(site, network, 1) == ["10.9.0.200"]
    with pytest.raises(CloudError, match="0 free addresses"):
        site.launch(1, network_id=network)
    assert site.cloud.read(audit) == []


def test_mac_addresses_of_imported_leases_are_not_made_again(site: TestCloud, make: Callable[..., str]) -> None:
    network = make("10.9.0.0/28")
    number = site.cloud.read(lambda tx: networks.get_network(tx, network).number)
    pinned = make("10.10.0.0/24", NetworkKind.PINNED, "pinned")
    text = f"ip,mac,name,hosts\n10.10.0.9,52:54:{number >> 8:02x}:{number & 255:02x}:00:40,,h1\n"
    site.cloud.write(lambda tx: import_leases(tx, pinned, read_leases(text.encode(), LeaseFormat.CSV)))
    with pytest.raises(Conflict, match=r"would be made in 10\.9\.0\.0/25"):
        resize(site, network, "10.9.0.0/25")
    assert resize(site, network, "10.9.0.0/26") == "10.9.0.0/26"


def test_a_network_of_65_thousand_addresses_has_no_row_for_a_free_one(
    site: TestCloud, make: Callable[..., str]
) -> None:
    network = make("10.9.0.0/16")
    assert fill(site, network, 3) == ["10.9.0.2", "10.9.0.3", "10.9.0.4"]
    assert site.cloud.read(lambda tx: len(tx.session.scalars(select(Lease.id)).all())) == 3
    site.cloud.write(lambda tx: tx.session.execute(update(Network).values(next_offset=65534)))
    assert fill(site, network, 1) == ["10.9.255.254"]
    assert site.views()[-1].mac.endswith(":ff:fe")
    with pytest.raises(CloudError, match="0 free addresses"):
        site.launch(1, network_id=network)
