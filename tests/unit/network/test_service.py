"""Instances go to their hosts once their network is there, and not before."""

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select

from controller.db.models import Lease, Network, Step
from controller.domain.errors import PoisonMessage
from controller.domain.messages import HostReported, ReconcileGuests, WireInstances
from controller.operations.cloud import Cloud
from network import queries
from network.service import NetworkService
from network.wiring import Reconciled
from tests.unit.network.rows import INSTANCES, IPS, NETWORKS, Rung, make_cloud


class HalfBroken:
    """Wiring in which one network fails."""

    def __init__(self) -> None:
        self.asked: list[set[str]] = []

    def reconcile(self, read: Callable[[], queries.Rows], *, verify: bool) -> Reconciled:
        rows = read()
        self.asked.append(set(rows.leases))
        failed = {NETWORKS[0]: "no bridge today"} if NETWORKS[0] in rows.leases else {}
        return Reconciled(rows, failed, {n: set() for n in rows.leases if n not in failed})


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    return make_cloud(tmp_path)


def guests(cloud: Cloud) -> list[str]:
    assert isinstance(cloud.bus, Rung)
    return [g.instance_id for m in cloud.bus.messages if isinstance(m, ReconcileGuests) for g in m.guests]


def test_without_a_host_side_instances_are_passed_on(cloud: Cloud) -> None:
    NetworkService(cloud).handle([WireInstances(NETWORKS, INSTANCES)])
    assert sorted(guests(cloud)) == sorted(INSTANCES)


def test_only_what_is_wired_is_passed_on(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    service = NetworkService(cloud)
    wiring = HalfBroken()
    monkeypatch.setattr(service, "_real", True)
    monkeypatch.setattr(service, "_wiring", wiring)
    for _ in range(2):  # the sweep rings again
        # The networks of the instances are wired even when the message does not name them.
        service.handle([WireInstances((), INSTANCES)])
    assert wiring.asked == [set(NETWORKS)] * 2
    assert guests(cloud) == [INSTANCES[1]] * 2
    steps = cloud.read(lambda tx: tx.session.execute(select(Step.instance_id, Step.event, Step.detail)).all())
    assert [tuple(s) for s in steps] == [(INSTANCES[0], "WIRING_FAILED", "no bridge today")]


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
