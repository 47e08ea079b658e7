"""What a placement group asks of placement."""

from controller.domain.open_enum import OpenEnum


class GroupStrategy(OpenEnum):
    """How the instances of a placement group are laid out (EC2's names)."""

    CLUSTER = "cluster"  # together: on one host while it has room
    SPREAD = "spread"  # apart: no two on one host
