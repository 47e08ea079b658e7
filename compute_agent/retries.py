"""How often work on a guest failed, and when it is tried again."""

from collections.abc import Callable

from compute_agent.errors import is_shortage
from controller.domain.errors import CloudError, HostError
from controller.domain.guests import Desired
from controller.domain.messages import GuestSpec

ATTEMPTS = 8
_BACKOFF_S, _BACKOFF_MAX_S = 1.0, 30.0


class Retries:
    """For one host; called by one thread at a time for each guest."""

    def __init__(self, jitter: Callable[[], float]) -> None:
        self._jitter = jitter
        self._failures: dict[str, tuple[int, int]] = {}  # instance -> generation, how often it failed

    def failed(self, spec: GuestSpec, error: Exception) -> int:
        """Count a failure that may pass; returns how many there were at this generation, 0 for one that is final.

        A removal that failed on the host is tried again whatever the reason: no guest may be left behind.
        """
        removing = spec.desired is Desired.ABSENT and isinstance(error, HostError)
        may_pass = is_shortage(error) or (isinstance(error, CloudError) and error.retriable)
        if not may_pass and not removing:
            return 0
        generation, failures = self._failures.get(spec.instance_id, (spec.generation, 0))
        failures = failures + 1 if generation == spec.generation else 1
        if failures >= ATTEMPTS:
            return 0
        self._failures[spec.instance_id] = (spec.generation, failures)
        return failures

    def pause_s(self, failures: int) -> float:
        """Seconds until the next attempt: doubled with each failure, 30 at most, by chance a quarter more or less."""
        return min(_BACKOFF_S * 2.0 ** (failures - 1), _BACKOFF_MAX_S) * (0.75 + self._jitter() / 2)

    def forget(self, instance_id: str) -> None:
        """The work is done, or has failed for good."""
        self._failures.pop(instance_id, None)
