"""The database goes, falls silent, is full or is locked

The site reaches its PostgreSQL through a proxy that can fall silent; what a statement may take is 3 s here.
"""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from controller.cli.health import api_problem
from controller.domain.states import State
from tests.faults import Row, each_row, row
from tests.functional.faults.black_hole import BlackHole
from tests.functional.faults.fault_site import LOCK_TIMEOUT_S, fault_site, placing_held_up
from tests.functional.faults.storm import Storm
from tests.functional.site_processes import SiteProcesses
from tests.servers.guarded import wait_until
from tests.servers.postgresql import PostgreSQL
from tests.servers.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.functional]

VETERANS = 20
COUNT = 100
ANSWER_TIMEOUT_S = 3
# Longer than an answer may take, a lock and a connection together.
SILENT_S = 8
# An answer, a new connection, and a machine that is busy.
NOTICED_S = 30
MAX_CONNECTIONS = 60

STEPS = {
    "requested": "100 instances accepted, the scheduler inside its claim's transaction",
    "building": "100 instances claimed, guests booting",
    "deleting": "100 instances being deleted",
}


@pytest.fixture(scope="module")
def database() -> Iterator[PostgreSQL]:
    """A server of its own, that notices deadlocks soon and has few connections."""
    options = {"deadlock_timeout": "50ms", "max_connections": str(MAX_CONNECTIONS)}
    with PostgreSQL(options=options) as server:
        yield server


@pytest.fixture(scope="module")
def hole(database: PostgreSQL) -> Iterator[BlackHole]:
    with BlackHole(database.port) as made:
        yield made


@pytest.fixture(scope="module")
def site(
    _rabbitmq: RabbitMQ, database: PostgreSQL, hole: BlackHole, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SiteProcesses]:
    _rabbitmq.start()
    url = make_url(database.new_database()).set(port=hole.port).render_as_string(hide_password=False)
    options = {("database", "answer_timeout_s"): ANSWER_TIMEOUT_S}
    folder = tmp_path_factory.mktemp("database")
    with fault_site(folder, database_url=url, bus_url=_rabbitmq.url, options=options) as made:
        made.run(VETERANS)
        made.wait_settled()
        yield made


def _rows(fault: str, seen: str) -> dict[str, Row]:
    return {step: Row(fault, strikes, seen) for step, strikes in STEPS.items()}


@contextmanager
def _at(step: str, site: SiteProcesses, storm: Storm) -> Iterator[None]:
    """Be where the fault is to strike."""
    if step == "requested":
        with placing_held_up(site):
            storm.launch(COUNT)
            yield
        return
    storm.launch(COUNT)
    if step == "building":
        storm.wait_some(State.BUILDING)
    else:
        storm.prove()
        storm.delete(storm.launched)
    yield


def _well(site: SiteProcesses) -> None:
    wait_until(lambda: api_problem(site.settings) == "", deadline_s=60, what=site.logs)


@each_row("step", _rows("the database is killed -9 and started again", "what was accepted comes true"))
def test_killed(site: SiteProcesses, storm: Storm, database: PostgreSQL, step: str) -> None:
    with _at(step, site, storm):
        database.kill()
        try:
            assert "503" in api_problem(site.settings)
        finally:
            database.start()
    _well(site)
    storm.prove()


@each_row(
    "step",
    _rows(
        "the database is silent, no connection is reset, for 8 s", "waits end after 3 s; what was accepted comes true"
    ),
)
def test_silent(site: SiteProcesses, storm: Storm, hole: BlackHole, step: str) -> None:
    with ExitStack() as stack:
        with _at(step, site, storm):
            stack.enter_context(hole.silent())
        wait_until(lambda: "503" in api_problem(site.settings, NOTICED_S), deadline_s=NOTICED_S, what=site.logs)
        threading.Event().wait(SILENT_S)
    _well(site)
    storm.prove()


@row(
    fault="all connections to the database are reset, four times",
    strikes="while 4 clients ask for 100 instances",
    seen="asked again with its token, nobody gets more than 100",
)
def test_reset(site: SiteProcesses, storm: Storm, hole: BlackHole) -> None:
    def blow() -> None:
        for _ in range(4):
            hole.cut()
            threading.Event().wait(0.2)

    storm.launch_while(COUNT, blow)
    _well(site)
    storm.prove()
    assert len(storm.launched) == COUNT


@row(
    fault="a stranger locks the hosts' rows in the other order: deadlocks",
    strikes="all through a launch of 200",
    seen="PostgreSQL counts deadlocks, the transactions that lose are done again: 200 of 200 ACTIVE",
)
def test_deadlocks(site: SiteProcesses, storm: Storm, database: PostgreSQL) -> None:
    stop = threading.Event()
    stranger = threading.Thread(target=_lock_the_other_way_round, args=(site, stop))
    stranger.start()
    try:
        storm.launch(2 * COUNT)
        wait_until(lambda: storm.states()[State.ACTIVE] == 2 * COUNT, deadline_s=60, what=site.logs)
    finally:
        stop.set()
        stranger.join(30)
    query = text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    wait_until(
        lambda: bool(site.rows.read(lambda tx: tx.session.scalar(query))), deadline_s=10, what=lambda: "no deadlock"
    )
    storm.prove()


def _lock_the_other_way_round(site: SiteProcesses, stop: threading.Event) -> None:
    url = make_url(site.settings.database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    while not stop.wait(0.01):
        try:
            with psycopg.connect(url) as connection:
                connection.execute(f"SET lock_timeout = '{LOCK_TIMEOUT_S}s'")
                for host in sorted(site.hosts(), reverse=True):
                    connection.execute("SELECT id FROM hosts WHERE id = %s FOR UPDATE", (host,))
                    stop.wait(0.01)
        except psycopg.OperationalError:
            continue  # it lost


@row(
    fault="strangers take every connection that the database has, for 6 s",
    strikes="100 instances claimed, guests booting, while the site's own connections are ended",
    seen="answers 503 meanwhile; what was accepted comes true",
)
def test_no_connection_left(site: SiteProcesses, storm: Storm, database: PostgreSQL, hole: BlackHole) -> None:
    storm.launch(COUNT)
    storm.wait_some(State.BUILDING)
    with ExitStack() as strangers:
        with hole.silent():  # so that the strangers are first
            hole.cut()
            _take_all(database, strangers)
        wait_until(lambda: "503" in api_problem(site.settings, NOTICED_S), deadline_s=NOTICED_S, what=site.logs)
        threading.Event().wait(6)
        assert "503" in api_problem(site.settings)
    _well(site)
    storm.prove()


def _take_all(database: PostgreSQL, strangers: ExitStack) -> None:
    """Connect until the server refuses, and a moment later still does."""
    url = make_url(database.url).set(drivername="postgresql").render_as_string(hide_password=False)
    refused = 0
    while refused < 5:
        try:
            strangers.enter_context(psycopg.connect(url, connect_timeout=5))
            refused = 0
        except psycopg.OperationalError:
            refused += 1
            threading.Event().wait(0.1)
