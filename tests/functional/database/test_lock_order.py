"""Whatever a transaction does, it locks instances before hosts: two never wait for each other in a ring."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import event

from controller.domain.guests import Power
from controller.domain.messages import GuestState, ScheduleReservation
from controller.domain.states import Event, State
from controller.operations.hosts import hosts, lost_hosts
from controller.operations.hosts.force_removal import force_remove
from controller.operations.instances import actions, sweeps
from controller.operations.networks import quarantine
from scheduler.host_cache import HostCache
from scheduler.schedule import schedule
from tests.labs.cloud import TestCloud
from tests.labs.servers.postgresql import PostgreSQL

pytestmark = pytest.mark.functional

# See ``controller.operations.instances.locking``.
ORDER = ("instances", "leases", "projects", "hosts")
_LOCKS = re.compile(r"^UPDATE (\w+) |FROM (\w+)(?:,| |\n).*FOR (?:NO KEY )?UPDATE", re.DOTALL)


class Locks:
    """The tables whose rows each transaction locked, in the order in which it began with each."""

    def __init__(self) -> None:
        self.transactions: list[list[str]] = [[]]

    def note(self, _connection: object, _cursor: object, statement: str, *_: object) -> None:
        found = _LOCKS.search(statement)
        table = (found[1] or found[2]) if found else ""
        if table in ORDER and table not in self.transactions[-1]:
            self.transactions[-1].append(table)

    def end(self, _connection: object) -> None:
        self.transactions.append([])


@pytest.fixture
def site(tmp_path: Path, postgresql: PostgreSQL) -> Iterator[TestCloud]:
    made = TestCloud.create(tmp_path, postgresql.new_database())
    for host in ("h1", "h2"):
        made.heartbeat(host)
    yield made
    made.close()


@pytest.fixture
def locks(site: TestCloud) -> Iterator[Locks]:
    made, engine = Locks(), site.cloud.database.engine
    event.listen(engine, "before_cursor_execute", made.note)
    event.listen(engine, "commit", made.end)
    event.listen(engine, "rollback", made.end)
    yield made
    event.remove(engine, "before_cursor_execute", made.note)
    event.remove(engine, "commit", made.end)
    event.remove(engine, "rollback", made.end)


def test_instances_are_locked_before_their_hosts(site: TestCloud, locks: Locks) -> None:
    ids = site.launch(4)
    bells = [m.reservation_id for m in site.bus.take(ScheduleReservation)]
    site.cloud.write(lambda tx: schedule(tx, bells, HostCache()))
    site.report(ids, Event.RUNNING)
    site.clock.advance(60)
    # Heartbeats that mend: one guest is off, another is gone; then the hosts fall silent, and come back.
    for host in ("h1", "h2"):
        mine = [v for v in site.views(ids) if v.host_id == host]
        guests = tuple(GuestState(i.id, i.generation, Power.SHUT_OFF) for i in mine[:1])
        site.heartbeat(host, guests=guests, sequence=1)
    site.clock.advance(60)
    while site.cloud.write(lost_hosts.mark_lost):
        pass
    site.heartbeat("h1", sequence=2)
    site.cloud.write(lambda tx: actions.terminate(tx, site.project_id, ids))
    site.cloud.write(sweeps.notify)
    site.clock.advance(3600)
    site.cloud.write(sweeps.expire)
    site.report(ids, Event.GONE)
    assert site.states(ids) == [State.DELETED] * 4
    _give_up(site)
    mixed = [t for t in locks.transactions if len(t) > 1]
    assert any({"instances", "hosts"} <= set(t) for t in mixed)
    assert [t for t in mixed if t != sorted(t, key=ORDER.index)] == []


def _give_up(site: TestCloud) -> None:
    site.heartbeat("h3", sequence=9)
    (one,) = site.launch(1)
    bells = [m.reservation_id for m in site.bus.take(ScheduleReservation)]
    site.cloud.write(lambda tx: schedule(tx, bells, HostCache()))
    _silence(site)
    host = site.instance(one).host_id or ""
    generation = site.instance(one).generation
    assert site.cloud.write(lambda tx: force_remove(tx, host, fenced=True)) == 1
    # It comes back, and is to remove the guest: by a generation that the row is given, too.
    for sequence in (10, 11):
        site.heartbeat(host, sequence=sequence, guests=(GuestState(one, generation + 5, Power.RUNNING),))
    assert site.instance(one).generation == generation + 6


def test_addresses_leave_quarantine_before_their_hosts_are_locked(site: TestCloud, locks: Locks) -> None:
    for fenced in (False, True):
        ids = _running(site, 2)
        host = site.instance(ids[0]).host_id or ""
        _silence(site)
        site.cloud.write(lambda tx, h=host: force_remove(tx, h))  # type: ignore[misc]
        assert site.cloud.read(quarantine.count)
        if fenced:
            site.cloud.write(lambda tx, h=host: quarantine.fence(tx, h))  # type: ignore[misc]
        # It comes back, and shows nothing.
        site.heartbeat(host, sequence=10 + fenced)
        epoch = site.cloud.read(lambda tx, h=host: hosts.get_host(tx, h)).epoch  # type: ignore[misc]
        site.heartbeat(host, sequence=20 + fenced, epoch=epoch)
        assert site.cloud.read(quarantine.count) == 0
    # Once more, and it is given up again before it was heard of without its guests.
    (one,) = _running(site, 1)
    host = site.instance(one).host_id or ""
    for said_dead in (False, True):
        _silence(site)
        site.cloud.write(lambda tx, h=host, f=said_dead: force_remove(tx, h, fenced=f))  # type: ignore[misc]
        if not said_dead:
            assert site.cloud.read(quarantine.count) == 1
            site.heartbeat(host, sequence=30)
    assert site.cloud.read(quarantine.count) == 0
    mixed = [t for t in locks.transactions if len(t) > 1]
    assert any({"leases", "hosts"} <= set(t) for t in mixed)
    assert [t for t in mixed if t != sorted(t, key=ORDER.index)] == []


def _running(site: TestCloud, count: int) -> list[str]:
    ids = site.launch(count)
    bells = [m.reservation_id for m in site.bus.take(ScheduleReservation)]
    site.cloud.write(lambda tx: schedule(tx, bells, HostCache()))
    site.report(ids, Event.RUNNING)
    return ids


def _silence(site: TestCloud) -> None:
    site.clock.advance(3600)
    while site.cloud.write(lost_hosts.mark_lost):
        pass
