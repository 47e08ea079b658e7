"""What the controller does not know yet: results in the journal, and requests that came too late."""

import threading
from collections.abc import Iterable
from itertools import islice

from compute_agent.journal.journal import Journal
from controller.domain.clock import Clock
from controller.domain.messages import GuestsChanged, OutdatedRequest

REPORTS_IN_A_MESSAGE = 1000


class Unreported:
    """For one host; safe to use from many threads.

    Outdated requests are in memory only: the sender of one that is lost asks again.
    """

    def __init__(self, host: str, journal: Journal, clock: Clock) -> None:
        self._host = host
        self._journal = journal
        self._clock = clock
        self._lock = threading.Lock()
        self._outdated: dict[str, OutdatedRequest] = {}  # by instance

    def add_outdated(self, requests: Iterable[OutdatedRequest]) -> None:
        """Report these as well."""
        with self._lock:
            self._outdated |= {request.instance_id: request for request in requests}

    def message(self) -> GuestsChanged | None:
        """What is to be reported, as much as goes into one message; None if there is nothing."""
        reports = self._journal.unreported(self._host, REPORTS_IN_A_MESSAGE)
        with self._lock:
            outdated = tuple(islice(self._outdated.values(), REPORTS_IN_A_MESSAGE))
        return GuestsChanged(self._host, tuple(reports), outdated) if reports or outdated else None

    def mark_sent(self, message: GuestsChanged) -> None:
        """The broker has this message. Raises Unavailable: the journal cannot be written."""
        with self._lock:
            for request in message.outdated:
                if self._outdated.get(request.instance_id) == request:
                    del self._outdated[request.instance_id]
        if message.reports:
            self._journal.mark_reported(self._host, message.reports, self._clock().timestamp())
