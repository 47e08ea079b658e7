"""A service's clock that is compared with the database's."""

from datetime import datetime, timedelta

import structlog

from controller.operations.cloud import Cloud

log = structlog.get_logger(__name__)


class WatchedClock:
    """Our clock; while it differs from the database server's by more than it may, the server's time.

    So rows are dated as other services date them. Nothing may expire by this clock, though: either of the two may be
    the wrong one.
    """

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._ahead = timedelta()
        self._compared = False
        self._right_since: datetime | None = None

    def __call__(self) -> datetime:
        """The time."""
        return self._cloud.clock() - self._ahead

    def compare(self) -> bool:
        """Whether both agree; says so in the log when that changes. Raises DatabaseUnavailable."""
        error_s = self._cloud.clock_error_s()
        if error_s and not self._ahead:
            log.error(
                "our clock and the database's differ: nothing expires here and no host is taken for lost",
                ahead_s=round(error_s),
            )
        elif self._ahead and not error_s:
            log.warning("our clock and the database's agree again")
            self._right_since = self._cloud.clock()
        self._ahead, self._compared = timedelta(seconds=error_s), True
        return not error_s

    def agrees_since(self, seconds: float) -> bool:
        """Whether both have agreed for so long, as of the last comparison; if they always have, for any time."""
        if self._ahead or not self._compared:
            return False
        return self._right_since is None or abs(self() - self._right_since) >= timedelta(seconds=seconds)
