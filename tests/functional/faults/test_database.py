"""The database goes, falls silent, is full or is locked

The site reaches its database through a proxy that can fall silent; what a statement may take is 3 s here.
"""

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack

import pytest
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from controller.cli.health import api_problem
from controller.domain.states import State
from tests.faults import each_row, row
from tests.labs.faults.black_hole import BlackHole
from tests.labs.faults.steps import BOTH, POSTGRESQL, STEPS, at, at_each_step
from tests.labs.faults.workload import CLIENTS, COUNT, Workload
from tests.labs.servers.guarded import wait_until
from tests.labs.servers.mariadb import MariaDB
from tests.labs.servers.postgresql import PostgreSQL
from tests.labs.site_processes import SiteProcesses

pytestmark = [pytest.mark.functional]

ANSWER_TIMEOUT_S = 3
# Longer than an answer may take, a lock and a connection together.
SILENT_S = 8
# An answer, a new connection, and a machine that is busy.
NOTICED_S = 30
MAX_CONNECTIONS = "60"
_DEADLOCKS = {
    "postgresql": "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()",
    "mysql": "SELECT count FROM information_schema.innodb_metrics WHERE name = 'lock_deadlocks'",
}
# So that it is the site that loses: PostgreSQL ends the transaction that looks for a deadlock first, MariaDB the one
# that has changed fewer rows.
_STAND_FIRM = {
    "postgresql": ("SET LOCAL deadlock_timeout = '1s'",),
    "mysql": (
        "CREATE OR REPLACE TEMPORARY TABLE weight (n INTEGER)",
        "INSERT INTO weight SELECT seq FROM seq_1_to_1000",
    ),
}


@pytest.fixture(scope="module")
def server(engine: str) -> Iterator[PostgreSQL | MariaDB]:
    """A server of its own, that notices deadlocks soon and has few connections."""
    made: PostgreSQL | MariaDB
    if engine == "postgresql":
        made = PostgreSQL(options={"deadlock_timeout": "50ms", "max_connections": MAX_CONNECTIONS})
    else:
        made = MariaDB(options={"max-connections": MAX_CONNECTIONS})
    with made:
        yield made


@pytest.fixture(scope="module")
def hole(server: PostgreSQL | MariaDB) -> Iterator[BlackHole]:
    with BlackHole(server.port) as made:
        yield made


@pytest.fixture(scope="module")
def database(server: PostgreSQL | MariaDB, hole: BlackHole) -> str:
    return make_url(server.new_database()).set(port=hole.port).render_as_string(hide_password=False)


@pytest.fixture(scope="module")
def options() -> Mapping[tuple[str, str], object]:
    return {("database", "answer_timeout_s"): ANSWER_TIMEOUT_S}


@each_row(
    "step",
    at_each_step(
        "the database is killed -9 and started again", "what was accepted comes true", dict.fromkeys(STEPS, BOTH)
    ),
)
def test_killed(site: SiteProcesses, workload: Workload, server: PostgreSQL | MariaDB, step: str) -> None:
    with at(step, site, workload):
        server.kill()
        try:
            assert "503" in api_problem(site.settings)
        finally:
            server.start()
    site.wait_open()
    workload.prove()


@each_row(
    "step",
    at_each_step(
        f"the database is silent, no connection is reset, for {SILENT_S} s",
        f"waits end after {ANSWER_TIMEOUT_S} s; what was accepted comes true",
        dict.fromkeys(STEPS, POSTGRESQL) | {"requested": BOTH},
    ),
)
def test_silent(site: SiteProcesses, workload: Workload, hole: BlackHole, step: str) -> None:
    with ExitStack() as stack:
        with at(step, site, workload):
            stack.enter_context(hole.silent())
        wait_until(lambda: "503" in api_problem(site.settings, NOTICED_S), deadline_s=NOTICED_S, what=site.logs)
        threading.Event().wait(SILENT_S)
    site.wait_open()
    workload.prove()


@row(
    fault="all connections to the database are reset, four times",
    strikes=f"while {CLIENTS} clients ask for {COUNT} instances",
    seen=f"asked again with its token, there are no more than {COUNT}",
    on=BOTH,
)
def test_reset(site: SiteProcesses, workload: Workload, hole: BlackHole) -> None:
    def blow() -> None:
        for _ in range(4):
            hole.cut()
            threading.Event().wait(0.2)

    workload.launch_while(COUNT, blow)
    site.wait_open()
    workload.prove()
    assert len(workload.launched) == COUNT


@row(
    fault="a stranger locks the hosts' rows in the other order: deadlocks",
    strikes=f"all through a launch of {2 * COUNT}",
    seen=f"the site loses some of them, and does those transactions again: {2 * COUNT} of {2 * COUNT} ACTIVE",
    on=BOTH,
)
def test_deadlocks(site: SiteProcesses, workload: Workload) -> None:
    before, lost, stop = _count_deadlocks(site), Counter[str](), threading.Event()
    stranger = threading.Thread(target=_lock_the_other_way_round, args=(site, stop, lost))
    stranger.start()
    try:
        workload.launch(2 * COUNT)
        wait_until(lambda: workload.states()[State.ACTIVE] == 2 * COUNT, deadline_s=60, what=site.logs)
        # Heartbeats, too, are written to the hosts' rows.
        wait_until(
            lambda: _count_deadlocks(site) > before + lost["deadlock"],
            deadline_s=60,
            what=lambda: f"{_count_deadlocks(site) - before} deadlocks, the stranger lost {lost}",
        )
    finally:
        stop.set()
        stranger.join(30)
    workload.prove()


def _count_deadlocks(site: SiteProcesses) -> int:
    query = text(_DEADLOCKS[site.rows.database.engine.dialect.name])
    return int(site.rows.read(lambda tx: tx.session.scalars(query).one()))


def _lock_the_other_way_round(site: SiteProcesses, stop: threading.Event, lost: Counter[str]) -> None:
    """Until ``stop``; counts what it ``lost``."""
    engine = site.rows.database.engine
    while not stop.wait(0.01):
        try:
            with engine.begin() as connection:
                for statement in _STAND_FIRM[engine.dialect.name]:
                    connection.execute(text(statement))
                for host in sorted(site.hosts(), reverse=True):
                    connection.execute(text("SELECT id FROM hosts WHERE id = :host FOR UPDATE"), {"host": host})
                    stop.wait(0.01)
        except OperationalError as error:
            lost["deadlock" if "deadlock" in str(error).lower() else "lock"] += 1


@row(
    fault="strangers take every connection that the database has, for 6 s",
    strikes=f"{STEPS['building']}, while the site's own connections are ended",
    seen="answers 503 meanwhile; what was accepted comes true",
    on=BOTH,
)
def test_no_connection_left(
    site: SiteProcesses, workload: Workload, server: PostgreSQL | MariaDB, hole: BlackHole
) -> None:
    with ExitStack() as strangers:
        with at("building", site, workload), hole.silent():  # so that the strangers are first
            hole.cut()
            _take_all(server, strangers)
        wait_until(lambda: "503" in api_problem(site.settings, NOTICED_S), deadline_s=NOTICED_S, what=site.logs)
        threading.Event().wait(6)
        assert "503" in api_problem(site.settings)
    site.wait_open()
    workload.prove()


def _take_all(server: PostgreSQL | MariaDB, strangers: ExitStack) -> None:
    """Connect until the server refuses, and a moment later still does."""
    engine = create_engine(server.url, poolclass=NullPool, connect_args={"connect_timeout": 5})
    refused = 0
    while refused < 5:
        try:
            strangers.enter_context(engine.connect())
            refused = 0
        except OperationalError:
            refused += 1
            threading.Event().wait(0.1)
