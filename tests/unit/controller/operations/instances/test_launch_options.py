"""Where and with what an instance is launched: network, address, placement group."""

from typing import Any

import pytest
from sqlalchemy import event, update

from controller.db.models import Instance, Lease, PlacementGroup
from controller.domain.errors import (
    AddressInUse,
    CloudError,
    Conflict,
    InvalidCombination,
    InvalidParameter,
    NetworkNotFound,
    NoFreeAddress,
    NoValidHost,
    PlacementGroupNotFound,
)
from controller.domain.lease_file import LeaseFile, LeaseRow
from controller.domain.networks import NetworkKind
from controller.domain.placement_groups import GroupStrategy
from controller.operations.accounts import projects
from controller.operations.cloud import Transaction
from controller.operations.hosts import hosts
from controller.operations.instances.launch_requests import LaunchRequest
from controller.operations.networks import networks
from controller.operations.networks.pinned_leases import import_leases
from tests.labs.cloud import TestCloud


def pinned(site: TestCloud, count: int, project_id: str | None = None, name: str = "web") -> str:
    """A pinned network with so many leases, all for host h1."""

    def create(tx: Transaction) -> str:
        network = networks.create_network(tx, project_id, name, "10.20.0.0/24", kind=NetworkKind.PINNED)
        tx.session.flush()
        rows = [LeaseRow(n, f"10.20.0.{9 + n}", f"02:00:00:00:00:{n:02x}", "", ("h1",)) for n in range(1, count + 1)]
        import_leases(tx, network.id, LeaseFile(rows))
        return network.id

    return site.cloud.write(create)


def test_without_a_word_it_is_the_projects_default(site: TestCloud) -> None:
    (first,) = site.launch(1)
    default = site.instance(first).network_id
    assert site.cloud.read(lambda tx: networks.get_network(tx, default).name) == "default"
    (second,) = site.launch(1, network_id=default)
    assert site.instance(second).network_id == default


def test_the_default_network_may_be_a_pinned_one(site: TestCloud) -> None:
    network = pinned(site, 2, site.project_id, name=networks.DEFAULT_NAME)
    assert {site.instance(i).network_id for i in site.launch(2)} == {network}


def test_networks_without_a_project_are_shared(site: TestCloud) -> None:
    shared = pinned(site, 2)
    other = site.cloud.write(lambda tx: projects.create_project(tx, "other").id)
    theirs = site.cloud.write(lambda tx: networks.create_network(tx, other, "theirs").id)
    (instance_id,) = site.launch(1, network_id=shared)
    assert site.instance(instance_id).network_id == shared
    for network_id in (theirs, "net-00000000000000000", "x" * 1000):
        with pytest.raises(NetworkNotFound):
            site.launch(1, network_id=network_id)


def test_a_batch_too_large_names_the_free_leases(site: TestCloud) -> None:
    network = pinned(site, 5)
    with pytest.raises(NoFreeAddress, match="has 5 free addresses; 6 were asked for"):
        site.launch(6, network_id=network)
    assert site.views() == []
    assert len(site.launch(network_id=network, min_count=2, max_count=60)) == 5
    empty = site.cloud.write(lambda tx: networks.create_network(tx, None, "empty", kind=NetworkKind.PINNED).id)
    with pytest.raises(NoFreeAddress, match="has 0 free addresses"):
        site.launch(1, network_id=empty)


def test_an_address_of_a_pinned_network(site: TestCloud) -> None:
    network = pinned(site, 2)
    (instance_id,) = site.launch(1, network_id=network, address="10.20.0.11")
    assert site.instance(instance_id).wanted_ip == "10.20.0.11"
    with pytest.raises(AddressInUse, match=r"10\.20\.0\.11 is in use by an instance that is about to start"):
        site.launch(1, network_id=network, address="10.20.0.11")
    held = update(Lease).where(Lease.ip == "10.20.0.10").values(instance_id=instance_id)
    site.cloud.write(lambda tx: tx.session.execute(held))
    with pytest.raises(AddressInUse, match="in use by an instance"):
        site.launch(1, network_id=network, address="10.20.0.10")


def test_an_address_of_a_pooled_network(site: TestCloud) -> None:
    (instance_id,) = site.launch(1, address="10.128.0.77")
    assert site.instance(instance_id).wanted_ip == "10.128.0.77"
    with pytest.raises(AddressInUse):
        site.launch(1, address="10.128.0.77")


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"address": "10.20.0.99"}, InvalidParameter, "no lease for it"),
        ({"address": "10.20.0.1"}, InvalidParameter, "from 10.20.0.2 to 10.20.0.254"),
        ({"address": "10.20.0.255"}, InvalidParameter, "from 10.20.0.2"),
        ({"address": "10.20.1.10"}, InvalidParameter, "from 10.20.0.2"),
        ({"address": "0.0.0.0"}, InvalidParameter, "from 10.20.0.2"),
        ({"address": "10.20.0.10/24"}, InvalidParameter, "no IPv4"),
        ({"address": "x" * 500 + "\n"}, InvalidParameter, "no IPv4"),
        ({"address": "10.20.0.10", "max_count": 2}, InvalidCombination, "one instance only"),
        ({"group_name": "nobody"}, PlacementGroupNotFound, "nobody"),
    ],
)
def test_refused_options(site: TestCloud, change: dict[str, Any], error: type[CloudError], says: str) -> None:
    network = pinned(site, 3)
    with pytest.raises(error, match=says):
        site.launch(network_id=network, **change)
    assert site.views() == []


def test_a_placement_group_of_the_project(site: TestCloud) -> None:
    def create(tx: Transaction, project_id: str, group_id: str) -> None:
        tx.session.add(
            PlacementGroup(
                id=group_id, project_id=project_id, name="together", strategy=GroupStrategy.CLUSTER, created_at=tx.now
            )
        )

    other = site.cloud.write(lambda tx: projects.create_project(tx, "other").id)
    site.cloud.write(lambda tx: create(tx, other, "pg-2"))
    with pytest.raises(PlacementGroupNotFound):
        site.launch(1, group_name="together")
    site.cloud.write(lambda tx: create(tx, site.project_id, "pg-1"))
    ids = site.launch(2, group_name="together")
    assert {site.instance(i).group_id for i in ids} == {"pg-1"}


def test_a_token_of_before_the_options_is_still_good() -> None:
    """The digest of a request without them is stored in the reservations of older clouds."""
    old = LaunchRequest("123456789012", "u-1", "ami-1", "p1.tiny", client_token="once", tags=(("Name", "web"),))
    assert old.digest() == "1127bae7323b1f12b97ce382c87c61bad95e6d38aff00c978c55f5ccb0b7b25e"
    assert len({old.digest(), *(_with(old, **{o: "x"}).digest() for o in ("network_id", "address", "group_name"))}) == 4


def _with(request: LaunchRequest, **changes: str) -> LaunchRequest:
    return LaunchRequest(**{**vars(request), **changes})


def test_the_token_gives_the_same_instances_with_their_options(site: TestCloud) -> None:
    network = pinned(site, 3)
    options = {"network_id": network, "client_token": "once"}
    first = site.launch(2, **options)
    assert site.launch(2, **options) == first


def test_one_and_a_thousand_are_the_same_statements(site: TestCloud) -> None:
    network = pinned(site, 200)
    site.heartbeat(vcpus=64, memory_mib=1 << 16, disk_gib=1000)
    statements: list[str] = []
    event.listen(site.cloud.database.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    site.launch(1, network_id=network)
    one = len(statements)
    statements.clear()
    site.launch(150, network_id=network)
    assert len(statements) == one <= 13
    assert site.cloud.read(lambda tx: tx.session.query(Instance).count()) == 151


def test_room_is_counted_as_the_hosts_have_it(site: TestCloud) -> None:
    site.heartbeat("h2", vcpus=1, memory_mib=128 * 3)
    site.heartbeat("h3", vcpus=0)
    site.heartbeat("h4", architecture="aarch64")
    with pytest.raises(NoValidHost) as caught:
        site.launch(500)
    for part in (
        "1 of 4 hosts: not x86_64",
        "1 of 4 hosts: too little free capacity",
        "2 of them have room for",
    ):
        assert part in str(caught.value)
    room = int(str(caught.value).rpartition(" ")[2].rstrip("."))
    assert len(site.launch(min_count=1, max_count=500)) == room


def test_a_network_by_its_id_or_by_its_name(site: TestCloud) -> None:
    network = pinned(site, 1)
    other = site.cloud.write(lambda tx: projects.create_project(tx, "other").id)
    for wanted in (network, "web"):
        assert site.cloud.read(lambda tx, w=wanted: networks.find_network(tx, w).id) == network  # type: ignore[misc]
    with pytest.raises(NetworkNotFound):
        site.cloud.read(lambda tx: networks.find_network(tx, "nothing"))
    site.cloud.write(lambda tx: networks.create_network(tx, other, "web"))
    with pytest.raises(Conflict, match="Several networks are called 'web': net-"):
        site.cloud.read(lambda tx: networks.find_network(tx, "web"))


@pytest.mark.parametrize("name", ["", "x" * 256, "a\nb", "\x1b[2J"])
def test_names_that_a_network_cannot_have(site: TestCloud, name: str) -> None:
    with pytest.raises(InvalidParameter, match="1 to 255 printable"):
        site.cloud.write(lambda tx: networks.create_network(tx, None, name))


def test_a_host_with_pinned_leases_is_not_forgotten(site: TestCloud) -> None:
    pinned(site, 1)
    with pytest.raises(CloudError, match="pinned lease"):
        site.cloud.write(lambda tx: hosts.remove_host(tx, "h1"))
