"""What a check answers with."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from controller.domain.guests import Power
from controller.domain.states import State
from controller.operations.cloud import Transaction

# What is in any other than these was put there by a newer release, which knows what may be of it.
KNOWN = tuple(State)
# Sweeps and heartbeats come in rounds: what is overdue for less is work in flight.
GRACE_S = 60


class Repair(StrEnum):
    """What ``--repair`` may do; none of it stops a guest that a row owns."""

    RECOUNT_HOST = "set the host's counters to the sum of its claims"
    RECOUNT_PROJECT = "set the project's counters to what is there"
    SWEEP = "end what is overdue"
    TAKE_POWER = "have the row say what the host says"
    REMOVE_GUEST = "have the host remove it"
    REMOVE_TAP = "have the host remove the interface"
    REWIRE = "have the network service make networks, DHCP and firewall equal to the rows"


@dataclass(frozen=True)
class Remedy:
    """A ``Repair`` and what it is to be done to; ``generation`` is that of the command or report that does it."""

    mend: Repair
    host: str = ""
    subject: str = ""
    generation: int = 0
    power: Power | None = None


@dataclass(frozen=True)
class Violation:
    """One promise of docs/audit.md that does not hold.

    ``subject`` is the id of what it is about, ``advice`` says what an operator can do, ``remedy`` what can be done
    for them. What was seen outside the database has a ``proof``: hosts and rows are not looked at in one moment, so
    it is believed only when a second look finds the same proof of the same subject.
    """

    promise: int
    what: str
    subject: str
    advice: str
    remedy: Remedy | None = None
    proof: str = ""

    @property
    def key(self) -> tuple[int, str, str]:
        """The same for the same breach in two looks."""
        return self.promise, self.subject, self.proof or self.what

    def __str__(self) -> str:
        return f"promise {self.promise}: {self.subject}: {self.what}; {self.advice}"


# Reads only, a number of statements that does not grow with the cloud.
Check = Callable[[Transaction], list[Violation]]
