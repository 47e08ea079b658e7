"""What may pass by itself: the agent tries again, a bounded number of times."""

import errno

from controller.domain.errors import DriverError, ImageFetchError

# The host, or the agent by its limits, has no more files, processes or memory to give at this moment.
_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM})


class HypervisorUnreachable(DriverError):
    """The hypervisor's daemon does not answer; its guests may run on."""

    code = "host.driver.unreachable"
    retriable = True


class GuestStarting(DriverError):
    """The hypervisor is still starting the guest: whether it will run is not known yet."""

    code = "host.driver.starting"
    retriable = True


class ImageSourceUnavailable(ImageFetchError):
    """Where the image is to come from does not answer right now."""

    code = "host.image_fetch.unavailable"
    retriable = True


class WorkAbandoned(Exception):
    """The agent is stopping: the work stays in the journal for the next start."""


def is_shortage(error: BaseException | None) -> bool:
    """Whether the cause of an error is that something is short which others will give back."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _SHORTAGES:
            return True
        error = error.__cause__
    return False


def one_line(error: BaseException, most: int) -> str:
    """What an error says, in one line of ``most`` characters that any database keeps: a program may print anything."""
    text = " ".join(str(error).split())
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)[:most]
