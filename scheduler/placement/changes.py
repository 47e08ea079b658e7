"""Which hosts changed since a reader last looked."""

from collections.abc import Iterable


class Changes:
    """A log of host indexes that keeps its newest entries: a reader that is further behind reads all hosts again."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._first = 0
        self._hosts: list[int] = []

    @property
    def mark(self) -> int:
        """The end of the log now; ``since`` takes it."""
        return self._first + len(self._hosts)

    def add(self, hosts: Iterable[int]) -> None:
        """These hosts changed."""
        self._hosts.extend(hosts)
        if len(self._hosts) > 2 * self._keep:
            dropped = len(self._hosts) - self._keep
            del self._hosts[:dropped]
            self._first += dropped

    def since(self, mark: int) -> list[int] | None:
        """The hosts that changed after the mark; None: the log no longer reaches back to it."""
        return self._hosts[mark - self._first :] if mark >= self._first else None
