"""The simulation's database for its tests: its files in memory, where there is such a place."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulation.database import SimulationDatabase, shared_memory


@pytest.fixture(scope="module")
def sim_database() -> Iterator[SimulationDatabase]:
    with tempfile.TemporaryDirectory(prefix="pileus-simulation-", dir=shared_memory()) as folder:
        made = SimulationDatabase(Path(folder))
        yield made
        made.close()
