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


# Those that seeds draw; the others are told where they are asked for.
TOLD = set(Scenario)


class Scenarios:
    """One seed's stories. Drawn apart from its faults: a story more does not change those."""

    def __init__(self, seed: int, told: Collection[Scenario] | None = None) -> None:
        """``told``: these and no others, instead of drawn ones."""
        self.random = Random(f"stories of {seed}")
        drawn = {story for story in Scenario if self.random.random() < _SHARE and story in TOLD}
        self._told = drawn if told is None else set(told)

    def __contains__(self, story: Scenario) -> bool:
        return story in self._told

    def __str__(self) -> str:
        return ", ".join(s for s in Scenario if s in self._told) or "no story"
