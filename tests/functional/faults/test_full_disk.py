"""A disk of a site is full: the one of the agents' journal, the one of the logs, the database's

Each lies on a small file system of its own.
"""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from controller.cli.health import api_problem
from controller.domain.states import State
from controller.operations.hosts import hosts
from tests.faults import row
from tests.labs.faults.fault_site import BUS_HEARTBEAT_S, FIRST_INSTANCES, HOST_DOWN_AFTER_S, fault_site
from tests.labs.faults.workload import OF_ONE, Workload
from tests.labs.servers.guarded import wait_until
from tests.labs.servers.postgresql import PostgreSQL
from tests.labs.servers.rabbitmq import RabbitMQ
from tests.labs.servers.volume import BLOCK_BYTES, Volume, own_mounts
from tests.labs.site_processes import HOSTS, SiteProcesses

pytestmark = [pytest.mark.functional]

COUNT = 100
# Longer than a host may be silent, and than a client of the broker may.
FULL_S = max(HOST_DOWN_AFTER_S, 2 * BUS_HEARTBEAT_S) + 1


@pytest.fixture(scope="module")
def mounts() -> Iterator[None]:
    with own_mounts():
        yield


@pytest.fixture(scope="module")
def tables(mounts: None) -> Iterator[Volume]:
    with Volume(128) as made:
        yield made


@pytest.fixture(scope="module")
def journal(mounts: None) -> Iterator[Volume]:
    with Volume(16) as made:
        yield made


@pytest.fixture(scope="module")
def logs(mounts: None) -> Iterator[Volume]:
    with Volume(8) as made:
        yield made


@pytest.fixture(scope="module")
def database(tables: Volume) -> Iterator[PostgreSQL]:
    # Who crashes does not start again by itself: that may need room, or not, and a test wants to know.
    server = PostgreSQL(options={"restart_after_crash": "off"})
    tables.lend(server.folder / "data", user=server.user)
    with server:
        yield server


@pytest.fixture(scope="module")
def site(
    _rabbitmq: RabbitMQ,
    database: PostgreSQL,
    journal: Volume,
    logs: Volume,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[SiteProcesses]:
    _rabbitmq.start()
    folder = tmp_path_factory.mktemp("full-disk")
    journal.lend(folder / "state" / "agent")
    url = database.new_database()
    with fault_site(folder, database_url=url, bus_url=_rabbitmq.url, logs=logs.folder) as made:
        yield made


@row(
    fault=f"the disk with the agents' journal is full for {FULL_S} s",
    strikes="before the commands of 100 builds reach the agents",
    seen="heartbeats go on and the hosts stay up; the commands are held, not acknowledged and not delivered again; "
    "100 of 100 ACTIVE when there is room again, each booted once",
)
def test_journal(site: SiteProcesses, workload: Workload, journal: Volume) -> None:
    agent = site.processes["compute"].log
    with journal.full():
        workload.launch(COUNT)
        wait_until(lambda: "disk is full" in agent.read_text(), deadline_s=30, what=site.logs)
        threading.Event().wait(FULL_S)
        assert workload.states() == {State.BUILDING: COUNT}
        assert site.rows.read(lambda tx: sum(h.up for h in hosts.list_hosts(tx))) == HOSTS
        assert workload.all_states()[State.ACTIVE] == FIRST_INSTANCES
    workload.prove()
    site.assert_alive()
    assert "bus lost" not in agent.read_text()


@row(
    fault="the disk with the logs is full",
    strikes="all through a launch of 100 and their termination",
    seen="100 of 100 ACTIVE, then DELETED, while not a line can be written; the services log again when there is room",
)
def test_logs(site: SiteProcesses, workload: Workload, logs: Volume) -> None:
    files = [process.log for process in site.processes.values()]
    for file in files:
        _fill_last_block(file)
    with logs.full():
        before = {file: file.stat().st_size for file in files}
        workload.launch(COUNT)
        workload.prove()
        workload.delete(workload.launched)
        workload.prove()
        site.assert_alive()
        assert {file: file.stat().st_size for file in files} == before
    workload.launch(COUNT)
    workload.prove()
    for name in ("api", "scheduler"):
        log = site.processes[name].log
        assert log.stat().st_size > before[log]


def _fill_last_block(file: Path) -> None:
    with file.open("ab") as end:
        end.write(b" " * (-end.tell() % BLOCK_BYTES))


@row(
    fault="the database's disk is full: its tables cannot grow",
    strikes="100 instances claimed, guests booting, while more are asked for",
    seen="what needs room is refused (503 Unavailable), the rest is served; with room again what was accepted comes "
    "true",
)
def test_tables(site: SiteProcesses, workload: Workload, tables: Volume, database: PostgreSQL) -> None:
    workload.launch(COUNT)
    workload.wait_some(State.BUILDING)
    with tables.full():
        workload.launch_until_refused()
        assert workload.refusals == {(503, "Unavailable")}
        described = workload.ec2.describe_instances()["Reservations"]
        assert {i["InstanceId"] for r in described for i in r["Instances"]} >= set(workload.launched)
        assert api_problem(site.settings) == ""
        assert database.running
    workload.prove()
    site.assert_alive()


@row(
    fault="the database's disk is full: PostgreSQL cannot write its checkpoint and ends itself (PANIC)",
    strikes="100 instances claimed, guests booting",
    seen="503 until the operator has made room and started it again; then what was accepted comes true",
)
def test_checkpoint(site: SiteProcesses, workload: Workload, tables: Volume, database: PostgreSQL) -> None:
    workload.launch(COUNT)
    workload.wait_some(State.BUILDING)
    with tables.full():
        with site.rows.database.engine.connect() as connection, pytest.raises(OperationalError):
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("CHECKPOINT"))
        wait_until(lambda: not database.running, deadline_s=30, what=lambda: database.log.read_text()[-4000:])
        workload.launch(OF_ONE)
        assert workload.refusals == {(503, "Unavailable")}
        assert "503" in api_problem(site.settings)
    database.start()
    workload.prove()
    site.assert_alive()
