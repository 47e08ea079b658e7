"""A cloud of simulated hosts below a temporary folder, and the command that an operator would type."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from controller.conf import load_settings
from controller.db.database import Database
from controller.domain.errors import CloudError
from controller.domain.ids import IdSource
from controller.operations.cloud import Cloud
from tests.labs.bus import FakeBus
from tests.labs.cloud import TestCloud, TurnedClock
from tests.labs.command import Command


@pytest.fixture
def nowhere(tmp_path: Path) -> Command:
    """The command where no cloud has been set up."""
    return Command(tmp_path / "state")


@pytest.fixture(scope="session")
def new_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a new cloud with three simulated hosts, to be copied."""
    state = tmp_path_factory.mktemp("new") / "state"
    Command(state)("init", "--simulated", "3")
    return state


@pytest.fixture
def command(nowhere: Command, new_state: Path) -> Command:
    """The command on a new cloud with three simulated hosts, not up."""
    shutil.copytree(new_state, nowhere.state)
    for file in (nowhere.state / "pileus.conf", nowhere.state / "cloudrc"):
        file.write_text(file.read_text().replace(str(new_state), str(nowhere.state)))
    return nowhere


@pytest.fixture
def site(command: Command) -> Iterator[TestCloud]:
    """The command's cloud, with a host h1 that is driven by hand."""
    settings = load_settings(command.state / "pileus.conf", {("controller", "open_registration"): "true"})
    clock, bus = TurnedClock(), FakeBus()
    cloud = Cloud(settings, Database(settings), bus, clock, IdSource(Random(7)), clock)
    made = TestCloud(cloud, clock, bus)
    cloud.write(made._populate)
    made.heartbeat("h1")
    yield made
    made.close()


@pytest.fixture
def refused() -> Callable[..., str]:
    """Run a command that must fail with an error of the domain; its message."""

    def run(command: Command, *arguments: str) -> str:
        with pytest.raises(CloudError) as caught:
            command(*arguments)
        return str(caught.value)

    return run
