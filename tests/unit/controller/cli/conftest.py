"""A cloud of simulated hosts below a temporary folder, and the command that an operator would type."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner, Result

from controller.cli.main import pileus
from controller.conf import load_settings
from controller.db.database import Database
from controller.domain.errors import CloudError
from controller.domain.ids import IdSource
from controller.operations.cloud import Cloud
from tests.labs.cloud import RememberingBus, TestCloud, TurnedClock


@dataclass(frozen=True)
class Command:
    """`pileus` on one cloud."""

    state: Path

    def __call__(self, *arguments: str) -> str:
        """Run it; what it prints. Errors of the domain come out as they are, as ``main`` takes them."""
        result = self.result(*arguments)
        if result.exception:
            raise result.exception
        return result.stdout

    def result(self, *arguments: str) -> Result:
        """Run it, whatever comes of it."""
        return CliRunner().invoke(pileus, ["--state", str(self.state), *arguments])

    def json(self, *arguments: str) -> Any:
        """Run it with JSON as its output."""
        return json.loads(self("--output", "json", *arguments))


@pytest.fixture
def nowhere(tmp_path: Path) -> Command:
    """The command where no cloud has been set up."""
    return Command(tmp_path / "state")


@pytest.fixture
def command(nowhere: Command) -> Command:
    """The command on a new cloud with three simulated hosts, not up."""
    nowhere("init", "--simulated", "3")
    return nowhere


@pytest.fixture
def site(command: Command) -> Iterator[TestCloud]:
    """The command's cloud, with a host h1 that is driven by hand."""
    settings = load_settings(command.state / "pileus.conf", {("controller", "open_registration"): "true"})
    clock, bus = TurnedClock(), RememberingBus()
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
