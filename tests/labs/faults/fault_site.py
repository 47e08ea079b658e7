"""The site that the faults strike at: real processes that are quick to notice, with guests that are there already."""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.labs.site_processes import SiteProcesses

# Guests that run before a fault strikes.
FIRST_INSTANCES = 20

# One of each, so that no other stands in for the one that is struck.
ONE_OF_EACH = ("compute", "network", "scheduler", "controller", "metadata", "api")
# Two of those of which a site may have several: the other one takes over.
TWO_OF_EACH = (
    "compute",
    "network-1",
    "network-2",
    "scheduler-1",
    "scheduler-2",
    "controller-1",
    "controller-2",
    "metadata",
    "api",
)

HEARTBEAT_S = 0.5
BUS_HEARTBEAT_S = 3
# More than two heartbeats of the bus: who does not notice that the broker fell silent takes hosts for dead.
HOST_DOWN_AFTER_S = 8
LOCK_TIMEOUT_S = 2
# Every time-out of the product that a fault may run into, as short as a loaded machine allows.
OPTIONS: Mapping[tuple[str, str], object] = {
    ("DEFAULT", "log_level"): "INFO",
    ("database", "lock_timeout_s"): LOCK_TIMEOUT_S,
    ("database", "pool_timeout_s"): 2,
    ("bus", "heartbeat_s"): BUS_HEARTBEAT_S,
    ("bus", "publish_timeout_s"): 2,
    ("controller", "sweep_s"): 0.25,
    ("controller", "ring_after_s"): 0.5,
    ("controller", "ring_max_s"): 2,
    ("controller", "host_down_after_s"): HOST_DOWN_AFTER_S,
    ("compute", "heartbeat_s"): HEARTBEAT_S,
    ("compute", "simulated_boot_s"): 0.6,
}


@contextmanager
def fault_site(
    folder: Path,
    *,
    database_url: str,
    bus_url: str,
    services: Sequence[str] = ONE_OF_EACH,
    options: Mapping[tuple[str, str], object] | None = None,
    logs: Path | None = None,
) -> Iterator[SiteProcesses]:
    """A running site with an image and its first instances."""
    with SiteProcesses(
        folder,
        database_url=database_url,
        bus_url=bus_url,
        cloud_id=secrets.token_hex(4),
        options={**OPTIONS, **(options or {})},
        services=services,
        logs=logs,
    ) as site:
        try:
            site.run(FIRST_INSTANCES)
            site.wait_settled()
            yield site
        finally:
            for name in site.processes:
                site.kill(name)  # nothing of it is wanted any more
