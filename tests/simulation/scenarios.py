"""What a seed's site is like, and what its operators do: drawn apart, each with a share of the seeds."""

from collections.abc import Collection
from enum import StrEnum
from random import Random

_SHARE = 0.2


class Scenario(StrEnum):
    """What may be special about a site."""

    SHORTAGE = "a network with few addresses"
    PINNED = "a pinned network"
    GROUPS = "placement groups"
    REMOVED = "a host is removed by force"
    RENAMED = "a host is renamed for a while"
    RESTORED = "the database is restored from a copy"
    EARLY_OFF = "guests power themselves off as soon as they run"
    SILENCE = "a host is silent for longer than any deadline"
    REPAIR = "pileus audit --repair"
    LOCKS = "leases are locked by others for a moment"
    MIXED = "neighbouring releases side by side"


# Those that seeds draw; the others happen where they are asked for.
DRAWN = set(Scenario)


class Scenarios:
    """One seed's scenarios. Drawn apart from its faults: a scenario more does not change those."""

    def __init__(self, seed: int, scenarios: Collection[Scenario] | None = None) -> None:
        """``scenarios``: these and no others, instead of drawn ones."""
        self.random = Random(f"stories of {seed}")
        drawn = {s for s in Scenario if self.random.random() < _SHARE and s in DRAWN}
        self._scenarios = drawn if scenarios is None else set(scenarios)

    def __contains__(self, scenario: Scenario) -> bool:
        return scenario in self._scenarios

    def __str__(self) -> str:
        return ", ".join(s for s in Scenario if s in self._scenarios) or "no scenario"
