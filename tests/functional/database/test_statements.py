"""How many statements a step of an instance's life takes: no more on many hosts than on one."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import event

from controller.domain.messages import GuestReport, GuestsChanged, ScheduleReservation
from controller.domain.states import Event, State
from controller.operations.hosts import hosts
from controller.operations.instances import actions
from controller.operations.instances.reports import apply_reports
from controller.operations.networks.networks import create_network
from scheduler.host_cache import HostCache
from scheduler.schedule import schedule
from tests.labs.cloud import TestCloud
from tests.labs.servers.postgresql import PostgreSQL

pytestmark = pytest.mark.functional

COUNT = 48


@contextmanager
def counted(site: TestCloud) -> Iterator[list[str]]:
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, parameters: object, *_: object) -> None:
        seen.extend([statement] * (len(parameters) if isinstance(parameters, list) else 1))

    event.listen(site.cloud.database.engine, "before_cursor_execute", note)
    yield seen
    event.remove(site.cloud.database.engine, "before_cursor_execute", note)


def life(site: TestCloud) -> tuple[int, dict[str, int]]:
    """UPDATEs of a launch and a termination of ``COUNT`` instances, and what each host carried meanwhile."""
    site.bus.sent.clear()
    ids = site.launch(COUNT)
    bells = [m.reservation_id for m in site.bus.take(ScheduleReservation)]
    with counted(site) as seen:
        site.cloud.write(lambda tx: schedule(tx, bells, HostCache()))
        site.cloud.write(lambda tx: apply_reports(tx, reports(site, ids, Event.RUNNING)))
        assert site.states(ids) == [State.ACTIVE] * COUNT
        used = {h.id: h.vcpus_used for h in site.cloud.read(hosts.list_hosts)}
        site.cloud.write(lambda tx: actions.terminate(tx, site.project_id, ids))
        site.cloud.write(lambda tx: apply_reports(tx, reports(site, ids, Event.GONE)))
    assert site.states(ids) == [State.DELETED] * COUNT
    assert not any(h.vcpus_used for h in site.cloud.read(hosts.list_hosts))
    return sum(s.startswith("UPDATE") for s in seen), used


def reports(site: TestCloud, ids: list[str], what: Event) -> list[GuestsChanged]:
    rows = site.views(ids)
    return [GuestsChanged(i.host_id or "", (GuestReport(i.id, i.generation, what),)) for i in rows]


def test_updates_do_not_grow_with_the_hosts(tmp_path: Path, postgresql: PostgreSQL) -> None:
    found = {}
    for count in (1, 16):
        site = TestCloud.create(tmp_path / str(count), postgresql.new_database())
        for n in range(count):
            site.heartbeat(f"h{n}", vcpus=64 // count, memory_mib=2**20)
        found[count], used = life(site)
        assert Counter(used.values()) == {COUNT // count: count}
        site.close()
    assert found[16] == found[1], found


def test_rows_of_one_request_are_one_statement_a_table(tmp_path: Path, postgresql: PostgreSQL) -> None:
    count = 1200
    site = TestCloud.create(tmp_path, postgresql.new_database(), quota__instances=count, quota__vcpus=count)
    for n in range(2):
        site.heartbeat(f"h{n}", vcpus=count, memory_mib=2**21, disk_gib=2**15)
    wide = site.cloud.write(lambda tx: create_network(tx, site.project_id, "wide", "10.64.0.0/16"))
    with counted(site) as seen:
        ids = site.launch(count, network_id=wide.id)
        (bell,) = site.bus.take(ScheduleReservation)
        site.cloud.write(lambda tx: schedule(tx, [bell.reservation_id], HostCache()))
    assert site.states(ids) == [State.BUILDING] * count
    inserted = Counter(s.split()[2] for s in seen if s.startswith("INSERT"))
    assert inserted == {"reservations": 1, "instances": 1, "steps": 2, "leases": 1, "claims": 1}
    # State and host together: each version of a row is one in each of its indexes.
    assert sum(s.startswith("UPDATE instances") for s in seen) == 1
    views = site.views(ids)
    assert [v.launch_index for v in views] == list(range(count))
    assert len({v.ip for v in views}) == len({v.mac for v in views}) == count
    assert Counter(v.host_id for v in views) == {"h0": count // 2, "h1": count // 2}
    site.close()
