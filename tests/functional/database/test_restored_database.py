"""A database that was restored from a backup, under agents that know what has happened since."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from compute_agent.agent import Agent
from compute_agent.journal.journal import Journal
from compute_agent.simulated.driver import SimulatedDriver, SimulatedSite
from controller.conf.settings import Compute
from controller.domain.guests import Power
from controller.domain.messages import (
    GuestReport,
    GuestsChanged,
    GuestState,
    HostReported,
    OutdatedRequest,
    PrepareNetworks,
    ScheduleReservation,
)
from controller.domain.states import Event, State
from controller.operations.audit.audit import audit
from controller.operations.hosts.heartbeats import apply_heartbeats
from controller.operations.instances import actions, history, sweeps
from controller.operations.instances.reports import apply_reports
from network import queries
from scheduler.host_cache import HostCache
from scheduler.schedule import schedule
from tests.faults import row
from tests.labs.cloud import TestCloud
from tests.labs.servers.postgresql import PostgreSQL

pytestmark = pytest.mark.functional

HOST = "h1"


class Restorable:
    """A cloud with a real agent, whose every message arrives; its database is backed up and restored."""

    def __init__(self, folder: Path, url: str, postgresql: PostgreSQL | None) -> None:
        self.site = TestCloud.create(folder, url)
        self._url = url
        self._postgresql = postgresql
        self._backup = folder / "backup"
        self._hardware = SimulatedSite(folder / "simulated.db")
        self._journal = Journal(folder / "journal.db")
        self.driver = SimulatedDriver(HOST, Compute(), self._hardware)
        self.agent = Agent(HOST, self.driver, self._journal, self.site.bus, self.site.clock, grace_s=0)
        self.agent.recover()

    def close(self) -> None:
        self._journal.close()
        self._hardware.close()
        self.site.close()

    def back_up(self) -> None:
        if self._postgresql:
            self._backup = self._postgresql.dump(self._url)
            return
        with closing(self._file()) as source, closing(sqlite3.connect(self._backup)) as copy:
            source.backup(copy)

    def restore(self) -> None:
        self.site.cloud.database.engine.dispose()
        if self._postgresql:
            self._postgresql.restore(self._url, self._backup)
            return
        with closing(self._file()) as target, closing(sqlite3.connect(self._backup)) as copy:
            copy.backup(target)

    def _file(self) -> sqlite3.Connection:
        return sqlite3.connect(make_url(self._url).database or "")

    def heartbeat(self) -> None:
        self.agent.heartbeat()
        self.settle()

    def settle(self) -> None:
        """Until nothing is under way any more; what is not heard is rung again."""
        cloud, bus = self.site.cloud, self.site.bus
        for _ in range(50):
            self._work()
            if not bus.sent:
                return
            sent, bus.sent = bus.sent, []
            for message in sent:
                match message:
                    case ScheduleReservation():
                        cloud.write(lambda tx, m=message: schedule(tx, [m.reservation_id], HostCache()))  # type: ignore[misc]
                    case PrepareNetworks():
                        bus.notify(cloud.read(lambda tx, m=message: queries.commands(tx, m.instance_ids, {})))  # type: ignore[misc]
                    case GuestsChanged():
                        cloud.write(lambda tx, m=message: apply_reports(tx, [m]))  # type: ignore[misc]
                    case HostReported():
                        cloud.write(lambda tx, m=message: apply_heartbeats(tx, [m]))  # type: ignore[misc]
                    case _:
                        self.agent.handle(message)
        raise AssertionError("it never comes to rest")

    def wait(self, seconds: int) -> None:
        """Time passes, as a site spends it: sweeps and heartbeats."""
        for _ in range(seconds // 10):
            self.site.clock.advance(10)
            self.site.cloud.write(sweeps.notify)
            self.settle()
            self.heartbeat()

    def act(self, action: Callable[..., object], instance_id: str) -> None:
        self.site.clock.advance(1)
        self.site.cloud.write(lambda tx: action(tx, self.site.project_id, [instance_id]))
        self.settle()

    def power(self, instance_id: str) -> Power | None:
        return self.driver.list_guests().get(instance_id)

    def _work(self) -> None:
        for spec in self.agent.pending():
            while self.agent.work(spec.instance_id) is not None:
                continue
        self.agent.report()


@pytest.fixture(params=["sqlite", "postgresql"])
def restorable(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Restorable]:
    server: PostgreSQL | None = None
    url = f"sqlite:///{tmp_path / 'pileus.sqlite'}"
    if request.param == "postgresql":
        server = request.getfixturevalue("postgresql")
        url = server.new_database()
    made = Restorable(tmp_path, url, server)
    made.heartbeat()
    yield made
    made.close()
    if server is not None:
        server.drop_database(url)


# What is asked of an instance that runs, its state then, its guest then.
ACTIONS = (
    (actions.terminate, State.DELETED, None),
    (actions.stop, State.STOPPED, Power.SHUT_OFF),
    (actions.reboot, State.ACTIVE, Power.RUNNING),
)


def boots(restorable: Restorable, instance_id: str) -> int:
    return restorable.driver.console(instance_id, 10_000).count(b"GUEST-UP")


@row(
    fault="the database is restored from a backup",
    strikes="after instances were rebooted once, twice and five times since it was made; SQLite and PostgreSQL",
    seen="TERMINATE, STOP, REBOOT and START do what they say, at once; the audit is clean",
)
@pytest.mark.parametrize("heard", [False, True], ids=["before any heartbeat", "after heartbeats"])
def test_every_wish_works_after_a_restore(restorable: Restorable, heard: bool) -> None:
    site = restorable.site
    ids = site.launch(9)
    restorable.settle()
    assert site.states(ids) == [State.ACTIVE] * 9
    restorable.back_up()
    for n, times in ((0, 1), (1, 2), (2, 5)):
        for _ in range(times):
            for instance_id in ids[3 * n : 3 * n + 3]:
                restorable.act(actions.reboot, instance_id)
    restorable.restore()
    assert {site.instance(i).generation for i in ids} == {1}
    if heard:
        restorable.wait(40)
        assert sorted({site.instance(i).generation for i in ids}) == [2, 3, 6]
        assert site.states(ids) == [State.ACTIVE] * 9
    before = {i: boots(restorable, i) for i in ids}
    for n, instance_id in enumerate(ids):
        action, state, power = ACTIONS[n % 3]
        restorable.act(action, instance_id)
        assert (site.instance(instance_id).state, restorable.power(instance_id)) == (state, power), n
        if power is not None:
            assert boots(restorable, instance_id) - before[instance_id] == (action is actions.reboot)
        if state is State.STOPPED:
            restorable.act(actions.start, instance_id)
            assert (site.instance(instance_id).state, restorable.power(instance_id)) == (State.ACTIVE, Power.RUNNING)
    restorable.wait(60)
    assert {str(s) for s in site.states(ids)} == {State.ACTIVE, State.DELETED}
    assert site.cloud.read(audit) == []


def test_instances_deleted_since_the_backup_stay_deleted(restorable: Restorable) -> None:
    site = restorable.site
    (one,) = site.launch(1)
    restorable.settle()
    restorable.back_up()
    restorable.act(actions.terminate, one)
    restorable.restore()
    restorable.wait(60)
    assert site.states([one]) == [State.STOPPED]
    restorable.act(actions.start, one)
    assert (site.instance(one).state, restorable.power(one)) == (State.STOPPED, None)
    story = site.cloud.read(lambda tx: [(s.event, s.detail) for s in history.explain(tx, one).events])
    assert story[-1] == (Event.FAILED, "Starting the guest failed on this host: its disk is gone.")
    restorable.act(actions.terminate, one)
    assert site.states([one]) == [State.DELETED]


def test_a_request_in_the_backup_is_carried_out(restorable: Restorable) -> None:
    """The backup was made between the request and the host's answer."""
    site = restorable.site
    ids = site.launch(3)
    restorable.settle()
    stopped, rebooted, deleted = ids
    site.cloud.write(lambda tx: actions.stop(tx, site.project_id, [stopped]))
    site.cloud.write(lambda tx: actions.reboot(tx, site.project_id, [rebooted]))
    site.cloud.write(lambda tx: actions.terminate(tx, site.project_id, [deleted]))
    restorable.back_up()
    restorable.settle()
    restorable.act(actions.start, stopped)
    for _ in range(3):
        restorable.act(actions.reboot, rebooted)
    before = boots(restorable, rebooted)
    restorable.restore()
    restorable.wait(60)
    assert site.states(ids) == [State.STOPPED, State.ACTIVE, State.DELETED]
    assert [restorable.power(i) for i in ids] == [Power.SHUT_OFF, Power.RUNNING, None]
    assert boots(restorable, rebooted) == before + 1
    assert site.cloud.read(audit) == []


def test_a_generation_that_cannot_be_is_not_believed(restorable: Restorable) -> None:
    site = restorable.site
    (one,) = site.launch(1)
    restorable.settle()
    for number, generation in enumerate((2**62, 2**31, 200_000)):
        site.clock.advance(60)
        beat = site.beat(HOST, guests=(GuestState(one, generation, Power.SHUT_OFF),), sequence=2**50 + number)
        site.cloud.write(lambda tx, b=beat: apply_heartbeats(tx, [b]))  # type: ignore[misc]
        for said in (GuestReport(one, generation, Event.GONE), GuestReport(one, generation, Event.SHUT_OFF)):
            answer = GuestsChanged(HOST, (said,), (OutdatedRequest(one, 1, generation),))
            site.cloud.write(lambda tx, a=answer: apply_reports(tx, [a]))  # type: ignore[misc]
        assert (site.instance(one).generation, site.instance(one).state) == (1, State.ACTIVE)
    restorable.act(actions.stop, one)
    assert site.states([one]) == [State.STOPPED]
