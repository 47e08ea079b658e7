"""Fixtures that all tests may use: the private servers and empty databases.

A server starts with the first test that wants it and ends with the test run; each pytest-xdist worker has
its own, so that a test may stop and kill them.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.labs.servers.mariadb import MariaDB
from tests.labs.servers.postgresql import PostgreSQL
from tests.labs.servers.rabbitmq import RabbitMQ


@pytest.fixture(scope="session")
def _rabbitmq() -> Iterator[RabbitMQ]:
    with RabbitMQ() as server:
        yield server


@pytest.fixture(scope="session")
def _postgresql() -> Iterator[PostgreSQL]:
    with PostgreSQL() as server:
        yield server


@pytest.fixture(scope="session")
def _mariadb() -> Iterator[MariaDB]:
    with MariaDB() as server:
        yield server


@pytest.fixture
def rabbitmq(_rabbitmq: RabbitMQ) -> RabbitMQ:
    """The broker, running even if the test before has stopped it."""
    _rabbitmq.start()
    return _rabbitmq


@pytest.fixture
def postgresql(_postgresql: PostgreSQL) -> PostgreSQL:
    """The server, running even if the test before has stopped it."""
    _postgresql.start()
    return _postgresql


@pytest.fixture
def mariadb(_mariadb: MariaDB) -> MariaDB:
    """The server, running even if the test before has stopped it."""
    _mariadb.start()
    return _mariadb


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("postgresql", marks=pytest.mark.functional),
        pytest.param("mariadb", marks=pytest.mark.functional),
    ]
)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of a fresh, empty database; the test runs once with each engine."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'pileus.sqlite'}"
        return
    server: PostgreSQL | MariaDB = request.getfixturevalue(request.param)
    url = server.new_database()
    yield url
    if server.running:
        server.drop_database(url)
