"""What keeps a process's services from their work, for its unit, `pileus status` and `/healthz`."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from controller.domain.errors import CloudError

# Says why something cannot do its work now, nothing where it can; returns at once.
Look = Callable[[], str]


@dataclass(frozen=True)
class Problem:
    """One of a process's problems. Not ``vital``: its work goes on without, but not as it should."""

    name: str
    reason: str
    vital: bool = True


class Health:
    """One process's."""

    def __init__(self) -> None:
        self._looks: dict[str, tuple[Look, bool]] = {}

    def add(self, name: str, look: Look, *, vital: bool = True) -> None:
        """Have this looked at as well."""
        self._looks[name] = look, vital

    def problems(self) -> list[Problem]:
        """What is not well now; returns at once."""
        found = [Problem(name, _asked(look), vital) for name, (look, vital) in list(self._looks.items())]
        return [p for p in found if p.reason]


def _asked(look: Look) -> str:
    try:
        return look()
    except Exception as error:  # a service that cannot say how it is, is not well
        return f"{type(error).__name__}: {error}"


def thread_problem(thread: threading.Thread | None, stopping: bool) -> str:
    """Why a thread does not work though it should."""
    if stopping or thread is None or thread.is_alive() or thread.ident is None:
        return ""
    return f"its thread {thread.name} has ended; restart the service"


class Probe:
    """Asks again and again, in a thread of its own, what may take its time to answer."""

    def __init__(self, name: str, ask: Look, every_s: float, late_s: float) -> None:
        """``late_s``: an answer that takes longer is a problem."""
        self._ask = ask
        self._every_s = every_s
        self._late_s = late_s
        self._stop = threading.Event()
        self._asked_at: float | None = None
        self._found = ""
        self._thread = threading.Thread(target=self._run, name=f"health-{name}", daemon=True)

    def start(self) -> None:
        """Begin with a first question at once."""
        self._thread.start()

    def stop(self) -> None:
        """Ask no more; a question under way is left alone."""
        self._stop.set()

    def problem(self) -> str:
        """What the last answer was."""
        asked_at = self._asked_at
        if asked_at is not None and time.monotonic() - asked_at > self._late_s:
            return f"no answer for {time.monotonic() - asked_at:.0f} s"
        return self._found or thread_problem(self._thread, self._stop.is_set())

    def _run(self) -> None:
        while not self._stop.is_set():
            self._asked_at = time.monotonic()
            try:
                self._found = self._ask()
            except CloudError as error:
                self._found = str(error)
            except Exception as error:
                self._found = f"{type(error).__name__}: {error}"
            self._asked_at = None
            self._stop.wait(self._every_s)
