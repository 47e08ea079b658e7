"""What an owner wants of an instance."""

from controller.domain.open_enum import OpenEnum


class ShutdownBehavior(OpenEnum):
    """What becomes of an instance whose guest powers itself off ."""

    STOP = "stop"
    TERMINATE = "terminate"
