"""Sites with guests that run already, on the database that a row says, and storms over them.

A module that wants something of its own says it with a fixture of the same name.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.labs.faults.fault_site import ONE_OF_EACH, fault_site
from tests.labs.faults.workload import Workload
from tests.labs.servers.mariadb import MariaDB
from tests.labs.servers.postgresql import PostgreSQL
from tests.labs.servers.rabbitmq import RabbitMQ
from tests.labs.site_processes import SiteProcesses


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those of a module that are run on one database, one after the other: their site is made once."""
    places = [n for n, item in enumerate(items) if item.path.parent == Path(__file__).parent]
    in_order = sorted((items[n] for n in places), key=lambda item: (item.path, _engine_of(item)))
    for n, item in zip(places, in_order, strict=True):
        items[n] = item


def _engine_of(item: pytest.Item) -> str:
    callspec = getattr(item, "callspec", None)
    return str(callspec.params.get("engine", "")) if callspec else ""


@pytest.fixture(scope="module")
def engine(request: pytest.FixtureRequest) -> str:
    """What the rows of the module are run ``on``: all of them say it, or none, as a site is made for each."""
    name: str = getattr(request, "param", "postgresql")
    return name


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest, engine: str) -> PostgreSQL | MariaDB:
    """The database server."""
    found: PostgreSQL | MariaDB = request.getfixturevalue(f"_{engine}")
    found.start()
    return found


@pytest.fixture(scope="module")
def database(server: PostgreSQL | MariaDB) -> Iterator[str]:
    """URL of the site's database."""
    url = server.new_database()
    yield url
    server.start()
    server.drop_database(url)


@pytest.fixture(scope="module")
def broker(_rabbitmq: RabbitMQ) -> RabbitMQ:
    _rabbitmq.start()
    return _rabbitmq


@pytest.fixture(scope="module")
def bus_url(broker: RabbitMQ) -> str:
    return broker.url


@pytest.fixture(scope="module")
def services() -> Sequence[str]:
    """What the site consists of."""
    return ONE_OF_EACH


@pytest.fixture(scope="module")
def options() -> Mapping[tuple[str, str], object]:
    """The site's further settings."""
    return {}


@pytest.fixture(scope="module")
def site(
    database: str,
    bus_url: str,
    services: Sequence[str],
    options: Mapping[tuple[str, str], object],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[SiteProcesses]:
    """The module's site, one on each database."""
    folder = tmp_path_factory.mktemp("site")
    with fault_site(folder, database_url=database, bus_url=bus_url, services=services, options=options) as made:
        yield made


@pytest.fixture
def workload(site: SiteProcesses) -> Iterator[Workload]:
    """Work for the module's ``site``; what it launched is gone afterwards."""
    made = Workload(site)
    yield made
    made.clear()
    made.close()
