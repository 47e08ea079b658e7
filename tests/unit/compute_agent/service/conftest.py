"""A compute service of three simulated hosts on the in-memory bus, and what it sends."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from controller.bus.bus import Bus
from controller.conf.settings import Compute, General, Settings
from controller.domain.ids import IdSource
from tests.labs.agent_service import Events


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return replace(
        Settings(),
        general=General(state_dir=str(tmp_path), cloud_id=IdSource.system().cloud_id(), host="sim"),
        compute=Compute(driver="simulated", simulated_hosts=3, heartbeat_s=0.2, simulated_boot_s=0.01),
    )


@pytest.fixture
def bus(settings: Settings) -> Iterator[Bus]:
    made = Bus(settings)
    yield made
    made.close()


@pytest.fixture
def events(settings: Settings) -> Iterator[Events]:
    made = Events(settings)
    yield made
    made.close()
