"""One line of a check, and how the probes are run: side by side, each with a deadline, whatever one of them does."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from controller.conf.settings import Settings
from controller.domain.errors import CloudError

DEADLINE_S = 15.0


class Status(StrEnum):
    """How one item is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Item:
    """What was looked at, how it is, what was seen; ``advice`` is empty where it is well."""

    name: str
    status: Status
    seen: str
    advice: str = ""


@dataclass(frozen=True)
class Subject:
    """What is checked: a configuration and its file, the services of this machine, how many processes the site has of
    each."""

    settings: Settings
    services: Sequence[str]
    processes: Mapping[str, int]
    file: Path | None = None


# Looks at one thing; may raise whatever it likes.
Probe = Callable[[Subject], Sequence[Item]]


def ok(name: str, seen: str) -> Item:
    """It is well."""
    return Item(name, Status.OK, seen)


def warn(name: str, seen: str, advice: str) -> Item:
    """It works, but not as it should."""
    return Item(name, Status.WARN, seen, advice)


def fail(name: str, seen: str, advice: str) -> Item:
    """The cloud will not work like this."""
    return Item(name, Status.FAIL, seen, advice)


def run_probes(probes: Mapping[str, Probe], subject: Subject, deadline_s: float = DEADLINE_S) -> list[Item]:
    """All items in the order of the probes; one that fails or hangs is one failed item under its name."""
    runs = [_Run(name, probe, subject) for name, probe in probes.items()]
    end = time.monotonic() + deadline_s
    return [item for run in runs for item in run.items(max(0.0, end - time.monotonic()), deadline_s)]


class _Run:
    """One probe in a thread; after its time it is not waited for."""

    def __init__(self, name: str, probe: Probe, subject: Subject) -> None:
        self._name = name
        self._probe = probe
        self._subject = subject
        self._items: Sequence[Item] | None = None
        self._thread = threading.Thread(target=self._run, name=f"check-{name}", daemon=True)
        self._thread.start()

    def items(self, timeout_s: float, deadline_s: float) -> Sequence[Item]:
        self._thread.join(timeout_s)
        if self._items is None:
            return [fail(self._name, f"no answer within {deadline_s:g} s", "is it overloaded, or a firewall between?")]
        return self._items

    def _run(self) -> None:
        try:
            self._items = self._probe(self._subject)
        except CloudError as error:
            self._items = [fail(self._name, str(error).rstrip("."), "see the reason")]
        except Exception as error:  # a check says what is wrong, whatever it is
            self._items = [fail(self._name, f"{type(error).__name__}: {_first_line(error)}", "see the reason")]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or "no message").splitlines()[0][:300]
