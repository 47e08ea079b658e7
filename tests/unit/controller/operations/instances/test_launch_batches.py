"""Launches that arrive together share a transaction, and each is answered as if it had been alone."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import TypeVar

import pytest
from sqlalchemy import event, func, select

from controller.db.models import Reservation
from controller.domain.errors import ImageNotFound, QuotaExceeded
from controller.domain.messages import ScheduleReservation
from controller.operations.accounts import projects
from controller.operations.audit.audit import audit
from controller.operations.cloud import Cloud, Transaction
from controller.operations.instances import launch_batches as launches_module
from controller.operations.instances.launch import Launched, launch_together
from controller.operations.instances.launch_batches import LaunchBatcher
from controller.operations.instances.launch_requests import LaunchRequest
from controller.operations.networks import networks
from tests.labs.cloud import TestCloud
from tests.labs.servers.guarded import wait_until

T = TypeVar("T")


class SlowCloud(Cloud):
    """Counts its transactions; the first one waits until ``go`` is set."""

    def write(self, operation: Callable[[Transaction], T]) -> T:
        first = not COUNTED
        COUNTED.append(1)
        if first:
            BEGUN.set()
            assert GO.wait(30)
        return super().write(operation)


COUNTED: list[int] = []
BEGUN, GO = threading.Event(), threading.Event()


@pytest.fixture
def site(tmp_path: Path, database_url: str) -> Iterator[TestCloud]:
    made = TestCloud.create(tmp_path, database_url, database__pool_size=20)
    made.heartbeat(vcpus=1000, memory_mib=10**6, disk_gib=10**6)
    made.launch(1)  # the project's network is there
    made.bus.sent.clear()
    COUNTED.clear()
    BEGUN.clear()
    GO.clear()
    yield made
    made.close()


def together(site: TestCloud, requests: Sequence[LaunchRequest]) -> list[Launched | Exception]:
    """The first request goes ahead; the others arrive while it is under way."""
    cloud = site.cloud
    launches = LaunchBatcher(SlowCloud(cloud.settings, cloud.database, cloud.bus, cloud.clock, cloud.ids, cloud.clock))

    def run(request: LaunchRequest) -> Launched | Exception:
        try:
            return launches(request)
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(requests)) as pool:
        first = pool.submit(run, requests[0])
        assert BEGUN.wait(30)
        others = []
        for n, request in enumerate(requests[1:], 1):
            others.append(pool.submit(run, request))
            deadline = threading.Event()
            for _ in range(3000):
                if sum(map(len, launches._waiting.values())) >= n:
                    break
                deadline.wait(0.01)
        GO.set()
        return [first.result(60), *(f.result(60) for f in others)]


def ids_of(results: Sequence[Launched | Exception]) -> list[list[str]]:
    return [[i.id for i in r.instances] for r in results if isinstance(r, Launched)]


def test_those_that_wait_share_one_transaction_and_one_doorbell(site: TestCloud) -> None:
    requests = [site.request(n, user_data="", tags=(("n", str(n)),)) for n in (1, 2, 3, 1, 2)]
    results = together(site, requests)
    assert [len(ids) for ids in ids_of(results)] == [1, 2, 3, 1, 2]
    assert len(COUNTED) == 2
    bells = site.bus.take(ScheduleReservation)
    assert [1 + len(b.more) for b in bells] == [1, 4]
    notified = {r for b in bells for r in (b.reservation_id, *b.more)}
    assert notified == {r.reservation.id for r in results if isinstance(r, Launched)}
    assert site.cloud.read(lambda tx: projects.get_project(tx, "demo").used_instances) == 10
    assert site.cloud.read(lambda tx: audit(tx)) == []


def test_the_same_token_twice_is_one_reservation(site: TestCloud) -> None:
    requests = [site.request(1), *(site.request(2, client_token="same") for _ in range(3))]
    results = ids_of(together(site, requests))
    assert results[1] == results[2] == results[3]
    assert site.cloud.read(lambda tx: tx.session.scalar(select(func.count()).select_from(Reservation))) == 3


def test_tokens_that_differ_share_a_transaction(site: TestCloud) -> None:
    requests = [site.request(1, client_token=f"t{n}") for n in range(4)]
    results = together(site, requests)
    assert len(COUNTED) == 2
    again = together(site, requests)
    assert ids_of(again) == ids_of(results)
    assert all(isinstance(r, Launched) and r.repeated for r in again)


def test_who_does_not_fit_is_refused_alone(site: TestCloud) -> None:
    site.cloud.write(lambda tx: projects.set_quota(tx, "demo", instances=5))
    results = together(site, [site.request(n) for n in (1, 2, 3, 1)])
    assert [type(r).__name__ for r in results] == ["Launched", "Launched", "QuotaExceeded", "Launched"]
    assert isinstance(results[2], QuotaExceeded)
    assert site.cloud.read(lambda tx: projects.get_project(tx, "demo").used_instances) == 5


def test_who_gets_fewer_than_the_most_is_counted_alone(site: TestCloud) -> None:
    pool = site.cloud.write(lambda tx: networks.create_network(tx, None, "pool", "10.9.0.0/28").id)
    requests = [site.request(1, network_id=pool), *(site.request(1, max_count=10, network_id=pool) for _ in range(2))]
    requests = [LaunchRequest(**{**vars(r), "min_count": 1}) for r in requests]
    assert [len(ids) for ids in ids_of(together(site, requests))] == [1, 10, 10]


def test_one_bad_request_harms_no_other(site: TestCloud) -> None:
    bad = LaunchRequest(**{**vars(site.request(1)), "min_count": 3})
    results = together(site, [site.request(1), site.request(1), bad, site.request(1)])
    assert [type(r).__name__ for r in results] == ["Launched", "Launched", "InvalidParameter", "Launched"]


def test_what_is_wrong_with_all_of_them_is_told_to_each(site: TestCloud) -> None:
    results = together(site, [site.request(1, image_id="ami-00000000000000000") for _ in range(3)])
    assert [type(r) for r in results] == [ImageNotFound] * 3


def test_projects_do_not_wait_for_each_other(site: TestCloud) -> None:
    other = site.cloud.write(lambda tx: projects.create_project(tx, "other").id)
    cloud = site.cloud
    launches = LaunchBatcher(SlowCloud(cloud.settings, cloud.database, cloud.bus, cloud.clock, cloud.ids, cloud.clock))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(launches, site.request(1))
        assert BEGUN.wait(30)
        assert len(launches(site.request(1, project_id=other)).instances) == 1
        assert not first.done()
        GO.set()
        assert len(first.result(60).instances) == 1
    assert launches._waiting == {}
    assert not launches._projects


def test_turns_come_soon(site: TestCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launches_module, "_TURN_S", 0.05)
    cloud = site.cloud
    launches = LaunchBatcher(SlowCloud(cloud.settings, cloud.database, cloud.bus, cloud.clock, cloud.ids, cloud.clock))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(launches, site.request(1))
        assert BEGUN.wait(30)
        assert len(launches(site.request(1, instance_type="m1.small")).instances) == 1
        assert not first.done()
        GO.set()
        assert len(first.result(60).instances) == 1


def test_no_transaction_is_open_while_another_of_the_project_is(site: TestCloud) -> None:
    cloud = site.cloud
    launches = LaunchBatcher(SlowCloud(cloud.settings, cloud.database, cloud.bus, cloud.clock, cloud.ids, cloud.clock))
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(launches, site.request(1))
        assert BEGUN.wait(30)
        second = pool.submit(launches, site.request(1, instance_type="m1.small"))
        wait_until(lambda: len(launches._waiting) == 2, deadline_s=30, what=lambda: "the second has not come")
        assert not wait([second], timeout=0.2).done
        assert len(COUNTED) == 1
        GO.set()
        assert [len(f.result(60).instances) for f in (first, second)] == [1, 1]


def test_statements_do_not_grow_with_the_requests(site: TestCloud) -> None:
    counts = []
    for size in (2, 20):  # several share a doorbell, so it is asked who can read that
        requests = [site.request(1) for _ in range(size)]
        seen: list[str] = []
        site.cloud.write(lambda tx, r=requests, s=seen: _counted(tx, r, s))  # type: ignore[misc]
        counts.append(len(seen))
    assert counts[0] == counts[1] <= 10


def _counted(tx: Transaction, requests: Sequence[LaunchRequest], seen: list[str]) -> None:
    connection = tx.session.connection()

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        seen.append(statement)

    event.listen(connection, "before_cursor_execute", note)
    launch_together(tx, requests)
    tx.session.flush()
