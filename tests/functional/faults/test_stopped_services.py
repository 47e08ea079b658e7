"""A service is stopped for a while, and comes back

SIGSTOP, for longer than a host or a client of the broker may be silent, then SIGCONT: the worker comes back and
believes that nothing happened. The tests share one site, with two of each service of which there may be two.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import pytest

from controller.domain.states import State
from tests.faults import Row, each_row, row
from tests.labs.faults.fault_site import BUS_HEARTBEAT_S, FIRST_INSTANCES, HOST_DOWN_AFTER_S, TWO_OF_EACH
from tests.labs.faults.steps import BOTH, POSTGRESQL, STEPS, at
from tests.labs.faults.workload import COUNT, Workload
from tests.labs.servers.guarded import wait_until
from tests.labs.site_processes import SiteProcesses

pytestmark = [pytest.mark.functional]

# The broker gives a client up after two heartbeats.
STOPPED_S = max(HOST_DOWN_AFTER_S, 2 * BUS_HEARTBEAT_S) + 1.0


@pytest.fixture(scope="module")
def services() -> Sequence[str]:
    return TWO_OF_EACH


@contextmanager
def _stopped(site: SiteProcesses, name: str) -> Iterator[None]:
    site.pause(name)
    try:
        yield
    finally:
        site.resume(name)


def _while_others_work() -> None:
    threading.Event().wait(STOPPED_S)


def _rows(strikes: str, seen: str) -> dict[str, Row]:
    names = ("network-1", "scheduler-1", "controller-1", "api")
    return {name: Row(f"{name} stopped for {STOPPED_S:g} s", strikes, seen, POSTGRESQL) for name in names}


@each_row("name", _rows(STEPS["building"], "each booted once, whichever service took over"))
def test_stopped_while_guests_are_built(site: SiteProcesses, workload: Workload, name: str) -> None:
    with at("building", site, workload), _stopped(site, name):
        _while_others_work()
    workload.prove()


@row(
    fault=f"both schedulers stopped for {STOPPED_S:g} s",
    strikes="inside the transactions that claim, with their locks",
    seen="nothing is placed meanwhile; when they go on 100 of 100 are ACTIVE, nothing is claimed twice",
    on=BOTH,
)
def test_stopped_with_the_claims_locks(site: SiteProcesses, workload: Workload) -> None:
    with ExitStack() as stack:
        with at("requested", site, workload):
            for name in ("scheduler-1", "scheduler-2"):
                stack.enter_context(_stopped(site, name))
        _while_others_work()
        assert workload.states() == {State.REQUESTED: COUNT}
    workload.prove()


@row(
    fault="all agents stopped until their hosts are down",
    strikes="20 guests run, 100 are being built, then 50 of them are terminated",
    seen="what ran is UNKNOWN, then ACTIVE again; no guest was restarted, none of the 50 is left",
    on=POSTGRESQL,
)
def test_agents_that_come_back(site: SiteProcesses, workload: Workload) -> None:
    with at("building", site, workload), _stopped(site, "compute"):
        wait_until(lambda: workload.all_states()[State.UNKNOWN] >= FIRST_INSTANCES, deadline_s=30, what=site.logs)
        workload.delete(workload.launched[: COUNT // 2])
    workload.prove()


@row(
    fault="all agents stopped until their hosts are down, twice in a row",
    strikes="120 guests run",
    seen="UNKNOWN and ACTIVE in turn, no guest was restarted",
    on=POSTGRESQL,
)
def test_agents_that_flap(site: SiteProcesses, workload: Workload) -> None:
    workload.launch(COUNT)
    workload.prove()
    for _ in range(2):
        with _stopped(site, "compute"):
            wait_until(
                lambda: workload.all_states()[State.UNKNOWN] == COUNT + FIRST_INSTANCES, deadline_s=30, what=site.logs
            )
        wait_until(
            lambda: workload.all_states()[State.ACTIVE] == COUNT + FIRST_INSTANCES, deadline_s=30, what=site.logs
        )
    workload.prove()


@row(
    fault=f"both schedulers, both controllers and both network services stopped for {STOPPED_S:g} s",
    strikes="while 4 clients ask for 100 instances",
    seen="all are accepted meanwhile; 100 of 100 ACTIVE",
    on=POSTGRESQL,
)
def test_all_workers_stopped(site: SiteProcesses, workload: Workload) -> None:
    workers = [name for name in TWO_OF_EACH if name.endswith(("-1", "-2"))]
    for name in workers:
        site.pause(name)
    try:
        workload.launch(COUNT)
        _while_others_work()
    finally:
        for name in workers:
            site.resume(name)
    workload.prove()
