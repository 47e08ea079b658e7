"""A machine is deleted at every step of its build, twice, by the services' own code, a step at a time."""

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import func, select

from compute_agent.agent import Agent
from compute_agent.journal.journal import Journal
from compute_agent.simulated.driver import SimulatedDriver, SimulatedSite
from controller.conf.settings import Compute
from controller.db.models import Claim, Lease
from controller.domain.messages import (
    GuestsChanged,
    HostAccepted,
    HostReported,
    PrepareNetworks,
    ReconcileGuests,
    ScheduleReservation,
)
from controller.domain.states import State
from controller.operations.audit.audit import audit
from controller.operations.hosts.heartbeats import apply_heartbeats
from controller.operations.instances import sweeps
from controller.operations.instances.actions import terminate
from controller.operations.instances.reports import apply_reports
from network.service import NetworkService
from scheduler.host_cache import HostCache
from scheduler.schedule import schedule
from tests.faults import Row, each_row
from tests.labs.cloud import TestCloud

pytestmark = pytest.mark.functional

HOST = "h1"
SEEN = "it ends DELETED; no guest, no claim and no address is left, and the audit finds nothing"
STEPS = {
    "accepted": "after the request is accepted",
    "placed": "after the scheduler's claim",
    "wired": "after its network is there, the command not yet taken by the agent",
    "taken": "after the agent has written the command down",
    "booting": "while the guest boots",
    "built": "after the guest is there, not yet reported",
    "reported": "after the agent's report, not yet applied",
    "active": "after it is ACTIVE",
}


class Line:
    """A cloud, its scheduler, network service and one agent; each step is done when the test says so."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.site = TestCloud.create(folder, database_url)
        self.site.heartbeat(HOST)
        self.booting: Callable[[], None] = lambda: None
        self._hardware = SimulatedSite(folder / "simulated.db")
        self._journal = Journal(folder / "journal.db")
        self.driver = SimulatedDriver(
            HOST, Compute(simulated_boot_s=1.0), self._hardware, random=Random(1), pause=lambda _: self.booting()
        )
        self.agent = Agent(HOST, self.driver, self._journal, self.site.bus, self.site.clock, grace_s=0)
        self.agent.recover()
        self._be_accepted()
        self._network = NetworkService(self.site.cloud)

    def close(self) -> None:
        self.site.close()
        self._journal.close()
        self._hardware.close()

    def _be_accepted(self) -> None:
        """The agent learns the epoch of its host, without which it heeds no command."""
        self.agent.heartbeat()
        heartbeats = self.site.bus.take(HostReported)
        self.site.cloud.write(lambda tx: apply_heartbeats(tx, heartbeats))
        for answer in self.site.bus.take(HostAccepted):
            self.agent.handle(answer)

    def place(self) -> None:
        for bell in self.site.bus.take(ScheduleReservation):
            self.site.cloud.write(lambda tx, b=bell: schedule(tx, [b.reservation_id], HostCache()))  # type: ignore[misc]

    def wire(self) -> None:
        if bells := self.site.bus.take(PrepareNetworks):
            self._network.handle(bells)

    def take(self) -> None:
        for command in self.site.bus.take(ReconcileGuests):
            self.agent.handle(command)

    def build(self) -> None:
        for spec in self.agent.pending():
            self.agent.work(spec.instance_id)

    def apply(self) -> None:
        if reports := self.site.bus.take(GuestsChanged):
            self.site.cloud.write(lambda tx: apply_reports(tx, reports))

    def go_on(self) -> None:
        """Every step once, and what a sweep does a minute later."""
        for step in (self.place, self.wire, self.take, self.build, self.agent.report, self.apply):
            step()
        self.site.clock.advance(60)
        self.site.heartbeat(HOST)
        self.site.cloud.write(sweeps.notify)
        self.site.cloud.write(sweeps.expire)


@pytest.fixture
def line(tmp_path: Path, database_url: str) -> Iterator[Line]:
    made = Line(tmp_path, database_url)
    yield made
    made.close()


@each_row("step", {name: Row("a machine is deleted, twice", where, SEEN) for name, where in STEPS.items()})
def test_deleted_twice(line: Line, step: str) -> None:
    site = line.site
    ids = site.launch(2)

    def delete_twice() -> None:
        for _ in range(2):
            site.cloud.write(lambda tx: terminate(tx, site.project_id, ids))

    def delete_while_it_boots() -> None:
        line.booting = lambda: None
        delete_twice()
        line.take()

    if step == "booting":
        line.booting = delete_while_it_boots
    work = {
        "accepted": lambda: None,
        "placed": line.place,
        "wired": line.wire,
        "taken": line.take,
        "booting": line.build,
        "built": line.build,
        "reported": line.agent.report,
        "active": line.apply,
    }
    for name, do in work.items():
        do()
        if name == step:
            break
    if step == "active":
        assert set(site.states(ids)) == {State.ACTIVE}
    if step != "booting":
        delete_twice()
    for _ in range(5):
        line.go_on()
    assert site.states(ids) == [State.DELETED] * 2
    assert dict(line.driver.list_guests()) == {}
    assert site.cloud.read(lambda tx: tx.session.scalar(select(func.count()).select_from(Claim))) == 0
    held = select(func.count()).select_from(Lease).where(Lease.instance_id.is_not(None))
    assert site.cloud.read(lambda tx: tx.session.scalar(held)) == 0
    assert site.cloud.read(audit) == []
    # And once more, long after.
    site.cloud.write(lambda tx: terminate(tx, site.project_id, ids))
    assert site.states(ids) == [State.DELETED] * 2
