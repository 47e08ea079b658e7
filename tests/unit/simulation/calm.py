"""A simulation in which nothing goes wrong by itself, and processes that do nothing by themselves."""

from random import Random

from tests.simulation.faults import Faults
from tests.simulation.hub import Hub, Process


def calm_hub() -> Hub:
    """Virtual time without faults."""
    hub = Hub(Random(1), Faults(Random(1)))
    hub.faults.calm = True
    return hub


def started(hub: Hub, name: str) -> Process:
    """A process that runs, and waits for what the test has it do."""
    process = Process(name, lambda _: None)
    hub.start(process)
    return process
