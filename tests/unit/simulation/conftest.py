"""A laboratory for the simulation's tests: its files in memory, where there is such a place."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.simulation.database import Laboratory, shared_memory


@pytest.fixture(scope="module")
def laboratory() -> Iterator[Laboratory]:
    with tempfile.TemporaryDirectory(prefix="pileus-simulation-", dir=shared_memory()) as folder:
        made = Laboratory(Path(folder))
        yield made
        made.close()
