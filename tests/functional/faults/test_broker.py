"""The broker goes, comes back empty, or falls silent

The site reaches its RabbitMQ through a proxy that can fall silent.
"""

import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack

import pytest

from tests.faults import each_row, row
from tests.labs.faults.black_hole import BlackHole
from tests.labs.faults.fault_site import BUS_HEARTBEAT_S
from tests.labs.faults.steps import at, at_each_step
from tests.labs.faults.workload import COUNT, Workload
from tests.labs.servers.rabbitmq import RabbitMQ
from tests.labs.site_processes import SiteProcesses

pytestmark = [pytest.mark.functional]

# Longer than a heartbeat, a read and a confirmation may take.
SILENT_S = 12
# As with the defaults, well above two heartbeats: who does not notice that the broker fell silent takes hosts for dead,
# and a request that finds no host alive ends in ERROR.
HOST_DOWN_AFTER_S = 20


@pytest.fixture(scope="module")
def hole(broker: RabbitMQ) -> Iterator[BlackHole]:
    with BlackHole(broker.port) as made:
        yield made


@pytest.fixture(scope="module")
def bus_url(broker: RabbitMQ, hole: BlackHole) -> str:
    return broker.url.replace(f":{broker.port}/", f":{hole.port}/")


@pytest.fixture(scope="module")
def options() -> Mapping[tuple[str, str], object]:
    return {("controller", "host_down_after_s"): HOST_DOWN_AFTER_S}


@each_row("step", at_each_step("the broker is killed -9 and started again", "what was accepted comes true"))
def test_killed(site: SiteProcesses, workload: Workload, broker: RabbitMQ, step: str) -> None:
    with at(step, site, workload):
        broker.kill()
    broker.start()
    workload.prove()


@each_row(
    "step",
    at_each_step(
        "the broker is killed -9 and comes back with nothing", "queues are declared, what was accepted comes true"
    ),
)
def test_empty(site: SiteProcesses, workload: Workload, broker: RabbitMQ, step: str) -> None:
    with at(step, site, workload):
        broker.kill()
        shutil.rmtree(broker.folder / "mnesia")
    broker.start()
    workload.prove()


@each_row(
    "step",
    at_each_step(f"the broker is silent, no connection is reset, for {SILENT_S} s", "what was accepted comes true"),
)
def test_silent(site: SiteProcesses, workload: Workload, hole: BlackHole, step: str) -> None:
    with ExitStack() as stack:
        with at(step, site, workload):
            stack.enter_context(hole.silent())
        threading.Event().wait(SILENT_S)
    workload.prove()


@row(
    fault=f"the broker is silent, no connection is reset, for {SILENT_S} s",
    strikes="while 4 clients ask for 100 instances, and 20 are terminated",
    seen="all is accepted meanwhile, and comes true",
)
def test_silent_while_requests_are_accepted(site: SiteProcesses, workload: Workload, hole: BlackHole) -> None:
    workload.launch(20)
    workload.prove()
    with hole.silent():
        threading.Event().wait(2 * BUS_HEARTBEAT_S)
        workload.launch(COUNT)
        workload.delete(workload.launched[:20])
        assert not workload.unanswered
        threading.Event().wait(SILENT_S)
    workload.prove()


@row(
    fault="all connections to the broker are reset, ten times",
    strikes="all through a launch of 100",
    seen="100 of 100 ACTIVE, each booted once",
)
def test_reset(site: SiteProcesses, workload: Workload, hole: BlackHole) -> None:
    def blow() -> None:
        for _ in range(10):
            hole.cut()
            threading.Event().wait(0.3)

    workload.launch_while(COUNT, blow)
    workload.prove()
    assert len(workload.launched) == COUNT


@row(
    fault="the broker is out of memory: it takes nothing from publishers",
    strikes="before a launch of 100",
    seen="all are accepted meanwhile; 100 of 100 ACTIVE",
)
def test_out_of_memory(site: SiteProcesses, workload: Workload, broker: RabbitMQ) -> None:
    broker.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
    try:
        workload.launch(COUNT)
        assert not workload.unanswered
        threading.Event().wait(SILENT_S)
    finally:
        broker.ctl("set_vm_memory_high_watermark", "0.4")
    workload.prove()
