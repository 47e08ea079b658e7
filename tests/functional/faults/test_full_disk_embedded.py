"""The disk of a whole cloud in one process is full: its database, journal, simulated guests and log lie there"""

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import func, select

from controller.cli.health import api_problem
from controller.db.models import InstanceEvent
from controller.domain.states import Event, State
from tests.faults import Row, each_row, row
from tests.labs.faults.fault_site import HOST_DOWN_AFTER_S, fault_site
from tests.labs.faults.workload import Workload
from tests.labs.servers.guarded import wait_until
from tests.labs.servers.volume import Volume, own_mounts
from tests.labs.site_processes import SiteProcesses

pytestmark = [pytest.mark.functional]

COUNT = 100
BOOT_S = 1.5
# Once for so long that hosts would be taken for lost.
FULL_S = {"building": HOST_DOWN_AFTER_S + 1, "deleting": 3}
# A process that can do nothing waits: it does not try all the time.
CPU_SHARE = 0.5


@pytest.fixture(scope="module")
def disk() -> Iterator[Volume]:
    with own_mounts(), Volume(32) as made:
        yield made


@pytest.fixture(scope="module")
def site(disk: Volume) -> Iterator[SiteProcesses]:
    folder, options = disk.folder / "cloud", {("compute", "simulated_boot_s"): BOOT_S}
    with fault_site(folder, database_url="", bus_url="memory://", services=["all"], options=options) as made:
        yield made


def _row(step: str, strikes: str) -> Row:
    return Row(
        f"the disk is full for {FULL_S[step]} s",
        strikes,
        "new requests are refused (503 Unavailable) and leave nothing, what is there is described; no host is taken "
        "for lost; with room again what was accepted comes true, and the log goes on",
    )


@each_row(
    "step",
    {
        "building": _row("building", "100 instances claimed, guests booting"),
        "deleting": _row("deleting", "100 instances being deleted"),
    },
)
def test_full(site: SiteProcesses, workload: Workload, disk: Volume, step: str) -> None:
    process = site.processes["all"]
    pid = process.pid
    with ExitStack() as stack:
        with _at(step, site, workload):
            stack.enter_context(disk.full())
        workload.launch_until_refused()
        with _idle(pid):
            threading.Event().wait(FULL_S[step])
        assert workload.refusals == {(503, "Unavailable")}
        assert any(workload.states()[s] for s in (State.REQUESTED, State.BUILDING, State.DELETING))
        described = workload.ec2.describe_instances()["Reservations"]
        assert {i["InstanceId"] for r in described for i in r["Instances"]} >= set(workload.launched)
        logged = process.log.stat().st_size
    workload.prove()
    assert process.pid == pid
    assert process.log.stat().st_size > logged
    assert _lost(site) == 0


@row(
    fault="kill -9 of the cloud's process while the disk is full, and started again",
    strikes="100 instances claimed, guests booting",
    seen="it comes up with what is there, `/healthz` says what is full, what needs room is refused; with "
    "room again what was accepted comes true",
)
def test_killed_while_full(site: SiteProcesses, workload: Workload, disk: Volume) -> None:
    with ExitStack() as stack:
        with _at("building", site, workload):
            stack.enter_context(disk.full())
        workload.launch_until_refused()
        site.kill("all")
        site.start("all")
        wait_until(lambda: "is full" in api_problem(site.settings), deadline_s=60, what=site.logs)
        described = workload.ec2.describe_instances()["Reservations"]
        assert {i["InstanceId"] for r in described for i in r["Instances"]} >= set(workload.launched)
        workload.launch_until_refused()
        assert workload.refusals == {(503, "Unavailable")}
    workload.prove()
    site.assert_alive()
    wait_until(lambda: api_problem(site.settings) == "", deadline_s=60, what=lambda: api_problem(site.settings))


@contextmanager
def _at(step: str, site: SiteProcesses, workload: Workload) -> Iterator[None]:
    """Be where the fault is to strike."""
    if step == "building":
        _give_back_room(site)
        workload.launch(COUNT)
        workload.wait_some(State.BUILDING)
        yield
        return
    workload.launch(COUNT)
    workload.prove()
    _give_back_room(site)
    # A stranger's lock on the journal: the agents come as far as their commands, and wait there.
    with closing(sqlite3.connect(site.state / "agent/journal.db", isolation_level=None)) as stranger:
        stranger.execute("BEGIN IMMEDIATE")
        workload.delete(workload.launched)
        yield


def _give_back_room(site: SiteProcesses) -> None:
    """What SQLite wrote goes from its logs into its files: it needs more room for whatever comes next."""
    for path in ("pileus.db", "agent/journal.db", "agent/simulated.db"):
        with closing(sqlite3.connect(site.state / path, timeout=10)) as file:
            file.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@contextmanager
def _idle(pid: int) -> Iterator[None]:
    """Meanwhile this process hardly uses the CPU."""
    began, used = time.monotonic(), _cpu_s(pid)
    yield
    share = (_cpu_s(pid) - used) / (time.monotonic() - began)
    assert share < CPU_SHARE


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _lost(site: SiteProcesses) -> int:
    """How often a machine's host was taken for lost."""
    query = select(func.count()).select_from(InstanceEvent).where(InstanceEvent.event == Event.HOST_LOST)
    return site.rows.read(lambda tx: tx.session.scalar(query)) or 0
