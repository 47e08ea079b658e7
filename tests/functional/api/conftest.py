"""A cloud behind a listening API, on SQLite or on each engine."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.labs.api_site import Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """On SQLite, with one host and one image: ``site.image``."""
    made = Site("", tmp_path)
    yield _furnished(made)
    made.close()


@pytest.fixture
def site_on_each_engine(database_url: str, tmp_path: Path) -> Iterator[Site]:
    """The same, once with each engine."""
    made = Site(database_url, tmp_path)
    yield _furnished(made)
    made.close()


@pytest.fixture
def ec2(site: Site) -> Any:
    """boto3's client of the site."""
    return site.client()


def _furnished(site: Site) -> Site:
    site.add_host()
    site.image = site.add_image()
    return site
