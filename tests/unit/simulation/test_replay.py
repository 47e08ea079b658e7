"""A seed is one history: run again, in another process too, it is the same to the last step."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.database import SimulationDatabase
from tests.simulation.site import run

_CHECKOUT = Path(__file__).parents[3]
_TELL = "from tests.bench.simulate import simulate; print([o.digest for o in simulate([{seed}])])"


def test_the_same_seed_twice_is_the_same(sim_database: SimulationDatabase) -> None:
    first, other, second = (run(seed, sim_database) for seed in (5, 6, 5))
    assert first.digest == second.digest
    assert first.digest != other.digest
    assert first.steps == second.steps > 500


@pytest.mark.slow
def test_another_process_tells_the_same(sim_database: SimulationDatabase) -> None:
    """Whatever the order in which its sets are iterated."""
    told = subprocess.run(
        [sys.executable, "-c", _TELL.format(seed=12)],
        cwd=_CHECKOUT,
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    assert told.strip().endswith(f"['{run(12, sim_database).digest}']")
