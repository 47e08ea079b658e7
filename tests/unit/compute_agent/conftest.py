"""An agent on a simulated host, and a bus that keeps what it is given."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from compute_agent.agent import Agent
from compute_agent.journal.journal import Journal
from compute_agent.simulated.driver import SimulatedDriver, SimulatedSite
from controller.conf.settings import Compute
from tests.labs.agent import HOST, NOW
from tests.labs.bus import FakeBus


@pytest.fixture
def bus() -> FakeBus:
    return FakeBus()


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
def new_agent(driver: SimulatedDriver, journal: Journal, bus: FakeBus) -> Callable[[], Agent]:
    """Another agent of the same host over the same journal: what a restart makes."""

    def make() -> Agent:
        agent = Agent(HOST, driver, journal, bus, lambda: NOW, grace_s=0, jitter=lambda: 0.5)
        agent.recover()
        return agent

    return make


@pytest.fixture
def agent(new_agent: Callable[[], Agent]) -> Agent:
    return new_agent()
