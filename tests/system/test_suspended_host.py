"""A host that was suspended: in a time namespace its clocks differ as they do then."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.system

_PROGRAM = """
import inspect, time
from compute_agent.agent import Agent
clock = inspect.signature(Agent).parameters["monotonic"].default
print(clock() - time.monotonic())
"""


def test_time_in_suspend_counts_for_the_expiry_of_commands() -> None:
    """Commands counted as younger than they were, by the length of the suspend."""
    argv = ["unshare", "--time", "--boottime", "5000", "--monotonic", "0", "--fork", sys.executable, "-c", _PROGRAM]
    answer = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=60)
    asleep_s = float(answer.stdout) - _ahead_s()
    assert 4990 < asleep_s < 5010


def _ahead_s() -> float:
    """By how much this machine itself was suspended."""
    answer = subprocess.run([sys.executable, "-c", _PROGRAM], check=True, capture_output=True, text=True, timeout=60)
    return float(answer.stdout)
