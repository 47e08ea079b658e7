"""A cloud on SQLite for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.labs.cloud import TestCloud


@pytest.fixture
def site(tmp_path: Path) -> Iterator[TestCloud]:
    """A cloud with one host that has room."""
    made = TestCloud.create(tmp_path)
    made.heartbeat()
    yield made
    made.close()
