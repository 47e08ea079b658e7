"""Why an instance is in its state, as its row keeps it: one of these codes, and a text for a person beside it."""

from controller.domain.open_enum import OpenEnum


class ReasonCode(OpenEnum):
    """The kinds of reasons; rows that release 0.1 wrote have EC2's codes, which have a dot in them."""

    NO_CAPACITY = "no_capacity"  # no host could take it
    NO_FREE_ADDRESS = "no_free_address"  # its network had no address left, or not the one that was asked for
    BUILD_FAILED = "build_failed"  # its host could not make the guest
    START_FAILED = "start_failed"  # its host could not start, or restart, a guest that it has
    TIMED_OUT = "timed_out"  # the deadline of its state was over
    GUEST_REMOVED = "guest_removed"  # its host has removed the guest, by a request that the row does not have
    HOST_FORCE_REMOVED = "host_force_removed"  # an operator has removed its host for ever
    INSTANCE_INITIATED_SHUTDOWN = "instance_initiated_shutdown"  # the guest powered itself off
