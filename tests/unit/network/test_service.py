"""Instances go to their hosts once their network is there, and not before."""

from collections.abc import Callable, Collection
from pathlib import Path

import pytest
from sqlalchemy import select, update

from controller.db.models import InstanceEvent, Lease, Network
from controller.domain.errors import PoisonMessage
from controller.domain.messages import HostReported, PrepareNetworks, ReconcileGuests
from controller.operations.cloud import Cloud
from network import queries
from network import service as network_service
from network.host_side import Reconciled
from network.service import NetworkService
from tests.labs.bus import FakeBus
from tests.labs.network_rows import INSTANCES, IPS, NETWORKS, NOW, make_cloud


class HalfBroken:
    """A host side in which one network fails, and ``stale`` networks ask for all of their leases."""

    def __init__(self, stale: Collection[str] = ()) -> None:
        self.whole: list[set[str]] = []
        self.new: list[dict[str, list[str]]] = []
        self._stale = stale

    def reconcile(self, read: Callable[[], queries.Rows], *, verify: bool) -> Reconciled:
        rows = read()
        self.whole.append(set(rows.leases))
        self.new.append({n: [lease.ip for lease in new.leases] for n, new in rows.new.items()})
        stale = {n for n in rows.new if n in self._stale}
        looked_at = {*rows.leases, *rows.new} - stale
        failed = {NETWORKS[0]: "no bridge today"} if NETWORKS[0] in looked_at else {}
        return Reconciled(rows, failed, {n: set() for n in rows.leases if n not in failed}, stale)


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    return make_cloud(tmp_path)


def guests(cloud: Cloud) -> list[str]:
    assert isinstance(cloud.bus, FakeBus)
    return [g.instance_id for m in cloud.bus.sent if isinstance(m, ReconcileGuests) for g in m.guests]


def test_without_a_host_side_instances_are_passed_on(cloud: Cloud) -> None:
    NetworkService(cloud).handle([PrepareNetworks(NETWORKS, INSTANCES)])
    assert sorted(guests(cloud)) == sorted(INSTANCES)


def on_a_host(cloud: Cloud, reconciler: HalfBroken, monkeypatch: pytest.MonkeyPatch) -> NetworkService:
    service = NetworkService(cloud)
    monkeypatch.setattr(service, "_host_side", reconciler)
    return service


def test_only_what_is_wired_is_passed_on(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    reconciler = HalfBroken()
    service = on_a_host(cloud, reconciler, monkeypatch)
    for _ in range(2):  # the sweep rings again
        # The networks of the instances are reconciled even when the message does not name them.
        service.handle([PrepareNetworks((), INSTANCES)])
    assert reconciler.new == [{n: [ip] for n, ip in zip(NETWORKS, IPS, strict=True)}] * 2
    assert reconciler.whole == [set()] * 2
    assert guests(cloud) == [INSTANCES[1]] * 2
    steps = cloud.read(
        lambda tx: tx.session.execute(
            select(InstanceEvent.instance_id, InstanceEvent.event, InstanceEvent.detail)
        ).all()
    )
    assert [tuple(s) for s in steps] == [(INSTANCES[0], "WIRING_FAILED", "no bridge today")]


def test_a_network_that_has_changed_otherwise_is_read_whole(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    reconciler = HalfBroken(stale=NETWORKS)
    on_a_host(cloud, reconciler, monkeypatch).handle([PrepareNetworks(NETWORKS, INSTANCES)])
    assert reconciler.whole == [set(), set(NETWORKS)]
    assert guests(cloud) == [INSTANCES[1]]


def test_what_was_given_back_or_changed_is_read_whole(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    reconciler = HalfBroken()
    service = on_a_host(cloud, reconciler, monkeypatch)
    service.handle([PrepareNetworks(NETWORKS[:1]), PrepareNetworks(NETWORKS, INSTANCES)])
    assert reconciler.whole == [{NETWORKS[0]}]
    assert reconciler.new == [{NETWORKS[1]: [IPS[1]]}]


def test_a_sweep_reads_the_leases_of_changed_networks_only(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    reconciler = HalfBroken(stale=NETWORKS[1:])
    on_a_host(cloud, reconciler, monkeypatch).sweep()
    assert reconciler.new == [{n: [] for n in NETWORKS}, {}]
    assert reconciler.whole == [set(), {NETWORKS[1]}]


def test_a_sweep_looks_at_networks_whose_addresses_rest(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    rest = update(Lease).where(Lease.ip == IPS[0]).values(instance_id=None, free_after=NOW)
    cloud.write(lambda tx: tx.session.execute(rest))
    reconciler = HalfBroken()
    on_a_host(cloud, reconciler, monkeypatch).sweep()
    assert reconciler.whole == [set(), {NETWORKS[0]}]


def test_a_sweep_lets_launches_go_first(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_service, "_LEASES_AT_ONCE", 1)
    reconciler = HalfBroken(stale=NETWORKS)
    on_a_host(cloud, reconciler, monkeypatch).sweep()
    assert reconciler.whole == [set(), {NETWORKS[0]}, {NETWORKS[1]}]


def test_a_message_that_is_not_ours_is_poison(cloud: Cloud) -> None:
    with pytest.raises(PoisonMessage):
        NetworkService(cloud).handle([HostReported("h", "", "", "", 1, 1, 1)])


def test_rows_hold_living_leases_of_the_asked_networks(cloud: Cloud) -> None:
    def add_free(tx: object) -> None:
        assert hasattr(tx, "session")
        tx.session.add(
            Lease(network_id=NETWORKS[0], ip="10.128.0.3", mac="52:54:00:01:00:03", released_at=cloud.clock())
        )

    cloud.write(add_free)
    rows = cloud.read(lambda tx: queries.rows(tx, [NETWORKS[0], "net-gone"]))
    assert [s.network_id for s in rows.segments] == list(NETWORKS)
    assert {n: [lease.ip for lease in leases] for n, leases in rows.leases.items()} == {NETWORKS[0]: [IPS[0]]}
    assert set(cloud.read(queries.rows).leases) == set(NETWORKS)


def test_rows_hold_the_names_of_leases(cloud: Cloud) -> None:
    cloud.write(lambda tx: tx.session.query(Lease).where(Lease.ip == IPS[0]).update({"dns_name": "web-1"}))
    leases = cloud.read(queries.rows).leases
    assert [[lease.hostname for lease in leases[n]] for n in NETWORKS] == [["web-1"], ["ip-10-128-4-2"]]


def test_a_network_without_leases_is_wired_too(cloud: Cloud) -> None:
    cloud.write(lambda tx: tx.session.query(Lease).delete())
    rows = cloud.read(queries.rows)
    assert rows.leases == {n: [] for n in NETWORKS}
    assert cloud.read(lambda tx: len(tx.session.scalars(select(Network)).all())) == 2


def test_starts_and_stops_without_a_host_side(cloud: Cloud) -> None:
    service = NetworkService(cloud)
    service.start()
    service.stop()
    service.destroy()
