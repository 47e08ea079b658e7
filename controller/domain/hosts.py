"""What an operator wants of a host."""

from controller.domain.open_enum import OpenEnum


class HostMode(OpenEnum):
    """What the operator wants of a host; whether it lives is another question, answered by its heartbeats."""

    READY = "READY"
    DISABLED = "DISABLED"
    DRAINING = "DRAINING"
