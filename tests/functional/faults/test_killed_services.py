"""A service is killed

The tests share one site with one process of each service, on RabbitMQ and PostgreSQL.
"""

from collections.abc import Iterator

import pytest

from controller.cli.health import api_problem
from controller.domain.states import State
from tests.faults import Row, each_row
from tests.functional.faults.fault_site import ONE_OF_EACH, fault_site, placing_held_up
from tests.functional.faults.storm import Storm
from tests.functional.site_processes import SiteProcesses
from tests.servers.guarded import wait_until
from tests.servers.postgresql import PostgreSQL
from tests.servers.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.functional]

VETERANS = 20
COUNT = 100
WORKERS = ("compute", "network", "scheduler", "controller")


@pytest.fixture(scope="module")
def site(
    _rabbitmq: RabbitMQ, _postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SiteProcesses]:
    _rabbitmq.start()
    _postgresql.start()
    url = _postgresql.new_database()
    with fault_site(tmp_path_factory.mktemp("killed"), database_url=url, bus_url=_rabbitmq.url) as made:
        made.run(VETERANS)
        made.wait_settled()
        yield made
    _postgresql.drop_database(url)


def _rows(strikes: str, seen: str, *names: str) -> dict[str, Row]:
    return {name: Row(f"kill -9 of {name}", strikes, seen) for name in names or ONE_OF_EACH}


@each_row(
    "name", _rows("while 4 clients ask for 100 instances", "asked again with its token, nobody gets more than 100")
)
def test_killed_while_requests_are_accepted(site: SiteProcesses, storm: Storm, name: str) -> None:
    storm.launch_while(COUNT, lambda: site.kill(name))
    _back(site, name)
    storm.prove()
    assert len(storm.launched) == COUNT


@each_row(
    "name", _rows("100 instances accepted, the scheduler inside its claim's transaction", "100 of 100 ACTIVE", *WORKERS)
)
def test_killed_before_the_claim(site: SiteProcesses, storm: Storm, name: str) -> None:
    with placing_held_up(site):
        storm.launch(COUNT)
        assert storm.states() == {State.REQUESTED: COUNT}
        site.kill(name)
    _back(site, name)
    storm.prove()


@each_row("name", _rows("100 instances claimed, guests booting", "100 of 100 ACTIVE, each booted once", *WORKERS))
def test_killed_while_guests_are_built(site: SiteProcesses, storm: Storm, name: str) -> None:
    storm.launch(COUNT)
    storm.wait_some(State.BUILDING)
    site.kill(name)
    _back(site, name)
    storm.prove()


@each_row("name", _rows("100 instances being deleted", "all are gone, with all that they held", *WORKERS))
def test_killed_while_guests_are_deleted(site: SiteProcesses, storm: Storm, name: str) -> None:
    storm.launch(COUNT)
    storm.prove()
    storm.delete(storm.launched)
    site.kill(name)
    _back(site, name)
    storm.prove()


def _back(site: SiteProcesses, name: str) -> None:
    """Start it again; the doors have to be open before anybody asks."""
    site.start(name)
    wait_until(lambda: api_problem(site.settings) == "", deadline_s=60, what=site.logs)
