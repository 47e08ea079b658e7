"""Simulates whole clouds with faults, one seed after the other: how many seeds break a promise.

JSON: ``seeds``, ``failed_seeds`` (the seeds themselves), ``steps`` (seams passed, at each of which a fault may
strike), ``faults`` (how often each kind struck), ``accepted`` and ``ended`` (requests).
"""

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tests.simulation.database import SimulationDatabase, shared_memory
from tests.simulation.site import Outcome, run


def main(argv: Sequence[str]) -> dict[str, object]:
    """Run the seeds; those that fail are told on standard error."""
    parser = argparse.ArgumentParser(prog="bin/bench simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=300, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first one")
    options = parser.parse_args(argv)
    outcomes = []
    for outcome in simulate(range(options.first, options.first + options.seeds)):
        outcomes.append(outcome)
        if outcome.failed:
            print(f"{outcome}\n", file=sys.stderr)
    return summary(outcomes)


def simulate(seeds: Iterable[int]) -> Iterator[Outcome]:
    """The outcome of each seed, one after the other."""
    with tempfile.TemporaryDirectory(prefix="pileus-simulation-", dir=shared_memory()) as folder:
        sim_database = SimulationDatabase(Path(folder))
        try:
            for seed in seeds:
                yield run(seed, sim_database)
        finally:
            sim_database.close()


def summary(outcomes: Sequence[Outcome]) -> dict[str, object]:
    """The figures of all seeds together."""
    faults: Counter[str] = Counter()
    for outcome in outcomes:
        faults.update(outcome.faults)
    return {
        "seeds": len(outcomes),
        "failed_seeds": [o.seed for o in outcomes if o.failed],
        "steps": sum(o.steps for o in outcomes),
        "faults": {str(kind): count for kind, count in sorted(faults.items())},
        "accepted": sum(o.accepted for o in outcomes),
        "ended": sum(o.ended for o in outcomes),
    }
