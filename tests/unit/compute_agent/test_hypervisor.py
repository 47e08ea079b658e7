"""The registries have what the configuration and the heartbeats name."""

import time
from pathlib import Path

import pytest

from compute_agent.hypervisor import HYPERVISORS, make_hypervisor
from compute_agent.storage.backends import DISK_BACKENDS
from controller.conf.settings import Compute
from tests.labs.cloud import make_settings


def test_every_driver_that_can_be_configured_is_there() -> None:
    choices = Compute.__dataclass_fields__["driver"].metadata["choices"]
    assert set(choices) == HYPERVISORS.keys()


@pytest.mark.parametrize("name", sorted(HYPERVISORS))
def test_hypervisor_has_hosts_and_threads(name: str, tmp_path: Path) -> None:
    made = make_hypervisor(make_settings(tmp_path, compute__driver=name), time.sleep)
    assert all(host.startswith("node") for host in made.hosts("node"))
    assert made.boot_threads() > 0
    assert made.other_threads() > 0
    assert made.is_simulated or set(made.disk_backends) <= DISK_BACKENDS.keys()
