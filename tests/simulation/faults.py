"""What goes wrong, how often: drawn for each seed, so that some seeds have one kind of fault and some have all."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from enum import StrEnum
from random import Random


class Fault(StrEnum):
    """What may strike at a seam."""

    CRASH = "crash"
    PAUSE = "pause"
    STATEMENT_FAILS = "statement fails"
    RACE_LOST = "race lost"
    COMMIT_FAILS = "commit fails"
    COMMIT_UNKNOWN = "committed, but not answered"
    MESSAGE_LOST = "message lost"
    MESSAGE_DOUBLED = "message doubled"
    MESSAGE_LATE = "message late"
    SEND_FAILS = "send fails"
    SEND_UNKNOWN = "sent, but not confirmed"
    HYPERVISOR_AWAY = "hypervisor unreachable"
    JOURNAL_FULL = "journal full"


class Disaster(StrEnum):
    """What happens to the site now and then."""

    KILL = "process killed"
    FREEZE = "process stopped for a while"
    BROKER_DOWN = "broker down"
    BROKER_EMPTIED = "broker restarted empty"
    DATABASE_DOWN = "database down"
    HOST_SILENT = "host cut off"
    HOST_REBOOTED = "host rebooted"
    GUEST_OFF = "guest powered off by itself"
    JOURNAL_LOST = "journal lost"
    CLOCK_STEPS = "clock of a host steps"
    POISON = "poison message"


# Probability at each opportunity, from and to.
_RATES = {
    Fault.CRASH: (0.0005, 0.02),
    Fault.PAUSE: (0.002, 0.05),
    Fault.STATEMENT_FAILS: (0.0005, 0.01),
    Fault.RACE_LOST: (0.0005, 0.01),
    Fault.COMMIT_FAILS: (0.002, 0.1),
    Fault.COMMIT_UNKNOWN: (0.002, 0.1),
    Fault.MESSAGE_LOST: (0.01, 0.4),
    Fault.MESSAGE_DOUBLED: (0.01, 0.4),
    Fault.MESSAGE_LATE: (0.01, 0.3),
    Fault.SEND_FAILS: (0.01, 0.3),
    Fault.SEND_UNKNOWN: (0.01, 0.3),
    Fault.HYPERVISOR_AWAY: (0.005, 0.2),
    Fault.JOURNAL_FULL: (0.002, 0.1),
}
_SHARE_ON = 0.4
_MAX_DISASTERS = 3


class Faults:
    """One seed's faults; ``calm`` ends them."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.calm = False
        self.counts: Counter[str] = Counter()
        self.clock: Callable[[], float] = lambda: 0.0
        self._times: dict[str, list[float]] = defaultdict(list)
        self._rates = {
            kind: math.exp(random.uniform(math.log(low), math.log(high)))
            for kind, (low, high) in _RATES.items()
            if random.random() < _SHARE_ON
        }
        self.disasters = [
            disaster
            for disaster in Disaster
            if random.random() < _SHARE_ON
            for _ in range(random.randint(1, _MAX_DISASTERS))
        ]

        self.driver_failure_rate = random.uniform(0.01, 0.15) if random.random() < _SHARE_ON / 2 else 0.0

    def strikes(self, kind: Fault) -> bool:
        """Whether this fault happens here."""
        rate = self._rates.get(kind)
        if rate is None or self.calm or self._random.random() >= rate:
            return False
        self.counts[kind] += 1
        self._times[kind].append(self.clock())
        return True

    def struck(self, kinds: Iterable[Fault], since: float) -> int:
        """How often these have happened since then."""
        return sum(at >= since for kind in kinds for at in self._times[kind])

    def __str__(self) -> str:
        rates = ", ".join(f"{kind} {rate:.4f}" for kind, rate in self._rates.items())
        return f"{rates or 'no faults at seams'}; {', '.join(self.disasters) or 'no disasters'}"
