"""A service is killed

The tests share one site with one process of each service, on RabbitMQ and a database.
"""

from collections.abc import Sequence

import pytest

from tests.faults import Row, each_row
from tests.labs.faults.fault_site import ONE_OF_EACH
from tests.labs.faults.steps import BOTH, POSTGRESQL, STEPS, at
from tests.labs.faults.workload import CLIENTS, COUNT, Workload
from tests.labs.site_processes import SiteProcesses

pytestmark = [pytest.mark.functional]

WORKERS = ("compute", "network", "scheduler", "controller")


def _rows(strikes: str, seen: str, *names: str, on_both: Sequence[str] = ()) -> dict[str, Row]:
    return {
        name: Row(f"kill -9 of {name}", strikes, seen, BOTH if name in on_both else POSTGRESQL)
        for name in names or ONE_OF_EACH
    }


@each_row(
    "name",
    _rows(
        f"while {CLIENTS} clients ask for {COUNT} instances",
        f"asked again with its token, there are no more than {COUNT}",
        on_both=["api"],
    ),
)
def test_killed_while_requests_are_accepted(site: SiteProcesses, workload: Workload, name: str) -> None:
    workload.launch_while(COUNT, lambda: site.kill(name))
    _back(site, name)
    workload.prove()
    assert len(workload.launched) == COUNT


@each_row("name", _rows(STEPS["requested"], f"{COUNT} of {COUNT} ACTIVE", *WORKERS, on_both=["scheduler"]))
def test_killed_before_the_claim(site: SiteProcesses, workload: Workload, name: str) -> None:
    _killed("requested", site, workload, name)


@each_row(
    "name",
    _rows(STEPS["building"], f"{COUNT} of {COUNT} ACTIVE, each booted once", *WORKERS, on_both=["controller"]),
)
def test_killed_while_guests_are_built(site: SiteProcesses, workload: Workload, name: str) -> None:
    _killed("building", site, workload, name)


@each_row("name", _rows(STEPS["deleting"], "all are gone, with all that they held", *WORKERS, on_both=["controller"]))
def test_killed_while_guests_are_deleted(site: SiteProcesses, workload: Workload, name: str) -> None:
    _killed("deleting", site, workload, name)


def _killed(step: str, site: SiteProcesses, workload: Workload, name: str) -> None:
    with at(step, site, workload):
        site.kill(name)
    _back(site, name)
    workload.prove()


def _back(site: SiteProcesses, name: str) -> None:
    """Start it again; the doors have to be open before a client asks."""
    site.start(name)
    site.wait_open()
