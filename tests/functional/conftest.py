"""Settings of a bus: in memory, or on a real broker with queues of its own for each test."""

import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.bus.bus import Bus
from controller.conf import Settings
from tests.labs.cloud import make_settings
from tests.labs.servers.rabbitmq import RabbitMQ


def own_cloud_id(request: pytest.FixtureRequest) -> str:
    """Queues of its own for each test."""
    return f"{zlib.crc32(request.node.nodeid.encode()):08x}"


@pytest.fixture(params=["memory", pytest.param("rabbitmq", marks=pytest.mark.functional)])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    url = "memory://" if request.param == "memory" else request.getfixturevalue("rabbitmq").url
    cloud_id = own_cloud_id(request)
    return make_settings(
        tmp_path, bus__url=url, DEFAULT__cloud_id=cloud_id, bus__max_attempts=3, bus__retry_after_s=0.2
    )


@pytest.fixture
def bus(settings: Settings) -> Iterator[Bus]:
    made = Bus(settings)
    yield made
    made.close()


@pytest.fixture
def broker_settings(request: pytest.FixtureRequest, rabbitmq: RabbitMQ, tmp_path: Path) -> Settings:
    return make_settings(
        tmp_path,
        bus__url=rabbitmq.url,
        bus__retry_after_s=0.2,
        bus__publish_timeout_s=2.0,
        DEFAULT__cloud_id=own_cloud_id(request),
    )
