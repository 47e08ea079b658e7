"""The words in which controller and agents speak of a guest."""

from enum import StrEnum

from controller.domain.open_enum import OpenEnum


class Desired(OpenEnum):
    """The state of a guest that its agent is to bring about."""

    RUNNING = "RUNNING"
    SHUT_OFF = "SHUT_OFF"
    ABSENT = "ABSENT"


class Power(OpenEnum):
    """The power state of a guest as its agent sees it."""

    RUNNING = "RUNNING"
    SHUT_OFF = "SHUT_OFF"


class OffCause(StrEnum):
    """Why a guest is off that was not told to, where the hypervisor knows; reports say it as text, UNKNOWN is ""."""

    UNKNOWN = ""
    SHUTDOWN = "shutdown"  # the guest powered itself off
    CRASHED = "crashed"  # its process died, or the guest panicked
    DESTROYED = "destroyed"  # its power was taken on the host
