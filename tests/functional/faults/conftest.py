"""Sites with guests that run already, and storms over them."""

from collections.abc import Iterator

import pytest

from tests.functional.faults.storm import Storm
from tests.functional.site_processes import SiteProcesses


@pytest.fixture
def storm(site: SiteProcesses) -> Iterator[Storm]:
    """Work for the module's ``site``; what it launched is gone afterwards."""
    made = Storm(site)
    yield made
    made.clear()
    made.close()
