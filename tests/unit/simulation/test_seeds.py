"""Hundreds of whole clouds with faults: every promise is kept in each."""

import pytest

from tests.simulation.database import SimulationDatabase
from tests.simulation.site import run

_SEEDS = 300
# The first ones are among the fast tests; there is no time for more there.
_FAST_SEEDS = 10
_IN_A_TEST = 10


@pytest.mark.parametrize(
    "first",
    [pytest.param(n, marks=[pytest.mark.slow] if n >= _FAST_SEEDS else []) for n in range(0, _SEEDS, _IN_A_TEST)],
)
def test_every_promise_is_kept(first: int, sim_database: SimulationDatabase) -> None:
    outcomes = [run(seed, sim_database) for seed in range(first, first + _IN_A_TEST)]
    failed = [o for o in outcomes if o.failed]
    assert not failed, "\n\n".join(map(str, failed))
    assert sum(o.accepted for o in outcomes) == sum(o.ended for o in outcomes) > 0
    assert sum(sum(o.faults.values()) for o in outcomes) > 0
