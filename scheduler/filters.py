"""What an operator's own filter imports, and the names of the built-in ones: documented, so this module stays.

The filters themselves are ``scheduler.placement.filters``.
"""

from scheduler.placement.filters import (
    ANY_NUMBER,
    Filter,
    Verdict,
    alive,
    architecture,
    capacity,
    group,
    hypervisor,
    in_service,
    labels,
    lasting,
    reserve,
    zone,
)

__all__ = [
    "ANY_NUMBER",
    "Filter",
    "Verdict",
    "alive",
    "architecture",
    "capacity",
    "group",
    "hypervisor",
    "in_service",
    "labels",
    "lasting",
    "reserve",
    "zone",
]
