"""``python -m tests.simulation SEED``: replay one seed and print all that happens."""

import sys
import tempfile
from pathlib import Path

from tests.simulation.database import SimulationDatabase, shared_memory
from tests.simulation.site import run


def main(seed: int) -> int:
    """Answers with 1 where the seed fails."""
    with tempfile.TemporaryDirectory(prefix="pileus-simulation-", dir=shared_memory()) as folder:
        sim_database = SimulationDatabase(Path(folder))
        try:
            outcome = run(seed, sim_database, print)
        finally:
            sim_database.close()
    print(outcome if outcome.failed else f"seed {seed} holds: {outcome.steps} steps, {dict(outcome.faults)}")
    return 1 if outcome.failed else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
