"""What there is outside of the database: asked of all agents and the network node at once, over the bus."""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field

from sqlalchemy import select

from controller.bus.sender import NoReceiverError, Sender
from controller.db.models import Host
from controller.domain.agent_messages import check
from controller.domain.errors import BusUnavailable, PoisonMessage
from controller.domain.messages import (
    HostObservation,
    Message,
    NetworkObservation,
    ObserveHost,
    ObserveNetworks,
)
from controller.operations.audit.violation import Violation
from controller.operations.cloud import Cloud, Transaction

TIMEOUT_S = 10.0
# Questions that wait for their answers at once: a site in which every tenth host is dumb takes one time-out, not fifty.
_AT_ONCE = 128


@dataclass(frozen=True)
class ObservedState:
    """What hosts and the network node said.

    ``silent`` are those that did not, and why; ``down`` are hosts that are known to be: they were not asked.
    ``bus_problem``: nobody could be asked.
    """

    hosts: Mapping[str, HostObservation] = field(default_factory=dict)
    network: NetworkObservation | None = None
    silent: Mapping[str, str] = field(default_factory=dict)
    down: Sequence[str] = ()
    bus_problem: str = ""


# As a ``Check``, of rows and of what was seen outside of them.
EvidenceCheck = Callable[[Transaction, ObservedState], list[Violation]]


# Makes what asks so many at once.
MakeExecutor = Callable[[int, str], Executor]


def observe(cloud: Cloud, timeout_s: float = TIMEOUT_S, executor: MakeExecutor = ThreadPoolExecutor) -> ObservedState:
    """Ask everybody. To be followed by a look at the rows, never the other way round: what is made on a host has a
    row before it is made. Takes ``timeout_s`` for each 128 hosts that do not answer, at most."""
    up = dict(cloud.read(lambda tx: tx.session.execute(select(Host.id, Host.up)).all()))
    asker = _Asker(cloud.bus, timeout_s)
    questions: list[Message] = [ObserveNetworks(), *(ObserveHost(h) for h in sorted(up) if up[h])]
    with executor(min(_AT_ONCE, len(questions)), "audit") as pool:
        answers = list(pool.map(asker.ask, questions))
    silent: dict[str, str] = {}
    hosts: dict[str, HostObservation] = {}
    network: NetworkObservation | None = None
    for question, answer in zip(questions, answers, strict=True):
        host = question.host if isinstance(question, ObserveHost) else ""
        subject = f"host {host}" if host else "the network service"
        if isinstance(answer, str):
            silent[subject] = answer
        elif isinstance(answer, NetworkObservation if host else HostObservation) or getattr(answer, "host", "") != host:
            silent[subject] = "its answer is not its own"
        elif isinstance(answer, HostObservation | NetworkObservation) and answer.error:
            silent[subject] = f"it cannot tell what is there: {answer.error.rstrip('.')}"
        elif isinstance(answer, HostObservation):
            hosts[host] = answer
        elif isinstance(answer, NetworkObservation):
            network = answer
    down = tuple(h for h in sorted(up) if not up[h])
    return ObservedState(hosts, network, silent, down, asker.bus_problem)


class _Asker:
    """Asks one question at a time in many threads; once the bus is found to be away, nobody tries any more."""

    def __init__(self, bus: Sender, timeout_s: float) -> None:
        self._bus = bus
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self.bus_problem = ""

    def ask(self, question: Message) -> Message | str:
        """The answer, or why there is none."""
        with self._lock:
            if self.bus_problem:
                return self.bus_problem
        try:
            answer = self._bus.call(question, self._timeout_s)
            check(answer)
            return answer  # noqa: TRY300 - that it can be read is part of it
        except NoReceiverError:
            return "its service is not connected to the message bus"
        except TimeoutError:
            return f"it did not answer within {self._timeout_s:g} s"
        except PoisonMessage as error:
            return f"its answer cannot be read: {error}"
        except BusUnavailable as error:
            with self._lock:
                self.bus_problem = str(error).rstrip(".")
            return self.bus_problem


def silence(_tx: Transaction, observed: ObservedState) -> list[Violation]:
    """Who does not tell what it has may have anything."""
    if observed.bus_problem:
        advice = "hosts and networks were not looked at: see [bus] url, `pileus check` and `pileus status`"
        return [Violation(5, observed.bus_problem, "the bus", advice, proof="silent")]
    down = [
        Violation(
            5,
            "it is down and was not looked at: what runs there is not known",
            f"host {host}",
            "bring it back, or `pileus host remove --force` it if it never comes back",
            proof="down",
        )
        for host in observed.down
    ]
    return down + [
        Violation(
            5 if subject.startswith("host ") else 9,
            why,
            subject,
            "is its service running, and is its queue being read? its log says what it is doing",
            proof="silent",
        )
        for subject, why in sorted(observed.silent.items())
    ]


CHECKS: tuple[EvidenceCheck, ...] = (silence,)
