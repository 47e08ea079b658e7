"""What kinds of networks there are."""

from controller.domain.open_enum import OpenEnum


class NetworkKind(OpenEnum):
    """How a network gives out its addresses."""

    POOLED = "POOLED"  # any free address, on any host
    PINNED = "PINNED"  # the imported leases only, each on the hosts that may carry it
