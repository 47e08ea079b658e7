"""An agent on a simulated host, and a bus that keeps what it is given."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from compute_agent.agent import Agent
from compute_agent.journal.journal import Journal
from compute_agent.simulated.driver import SimulatedDriver, SimulatedSite
from controller.conf.settings import Compute
from controller.domain.errors import BusUnavailable
from controller.domain.guests import Desired
from controller.domain.messages import GuestReport, GuestsChanged, GuestSpec, ImageSpec, Message, NicSpec

HOST = "node-1"
NOW = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
IMAGE = ImageSpec("ami-0123456789abcdef0", "0" * 64, 1024, "qcow2", "file:///nowhere")


def instance(number: int) -> str:
    """The id of the so-manieth guest."""
    return f"i-{number:017x}"


def guest(number: int = 1, generation: int = 1, desired: Desired = Desired.RUNNING, **more: object) -> GuestSpec:
    """A guest as a command describes it."""
    spec = GuestSpec(
        instance_id=instance(number),
        generation=generation,
        desired=desired,
        project_id="p1",
        name=f"guest-{number}",
        vcpus=1,
        memory_mib=64,
        disk_gib=1,
        image=IMAGE,
        nics=(NicSpec("net-1", 100, "02:00:00:00:00:01", f"10.0.0.{number}", 24),),
    )
    return replace(spec, **more)  # type: ignore[arg-type]


class MemoryBus:
    """Keeps what is sent; can be down."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.down = False

    def send_all(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self.send(message)

    def send(self, message: Message) -> None:
        if self.down:
            raise BusUnavailable(what="The message bus", reason="it is down")
        self.sent.append(message)

    def notify(self, messages: Iterable[Message]) -> None:
        for message in messages:
            self.send(message)

    def call(self, message: Message, timeout_s: float) -> Message:
        raise TimeoutError

    def reports(self) -> list[GuestReport]:
        """Every report so far, in their order."""
        return [r for m in self.sent if isinstance(m, GuestsChanged) for r in m.reports]


@pytest.fixture
def bus() -> MemoryBus:
    return MemoryBus()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[SimulatedSite]:
    made = SimulatedSite(tmp_path / "simulated.db")
    yield made
    made.close()


@pytest.fixture
def driver(site: SimulatedSite) -> SimulatedDriver:
    return SimulatedDriver(HOST, Compute(), site)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "journal.db")
    yield made
    made.close()


@pytest.fixture
def new_agent(driver: SimulatedDriver, journal: Journal, bus: MemoryBus) -> Callable[[], Agent]:
    """Another agent of the same host over the same journal: what a restart makes."""

    def make() -> Agent:
        agent = Agent(HOST, driver, journal, bus, lambda: NOW, grace_s=0, jitter=lambda: 0.5)
        agent.begin()
        return agent

    return make


@pytest.fixture
def agent(new_agent: Callable[[], Agent]) -> Agent:
    return new_agent()


def work_all(agent: Agent) -> None:
    """Carry out everything that wants work."""
    for spec in agent.pending():
        while agent.work(spec.instance_id) is not None:
            continue
