"""A simulation in which nothing goes wrong by itself, and processes that do nothing by themselves."""

from random import Random

from tests.simulation.faults import Faults
from tests.simulation.simulator import Process, Simulator


def calm_simulator() -> Simulator:
    """Virtual time without faults."""
    simulator = Simulator(Random(1), Faults(Random(1)))
    simulator.faults.calm = True
    return simulator


def started(simulator: Simulator, name: str) -> Process:
    """A process that runs, and waits for what the test has it do."""
    process = Process(name, lambda _: None)
    simulator.start(process)
    return process
