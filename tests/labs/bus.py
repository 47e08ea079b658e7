"""The one fake bus: it keeps what is sent, in order, and answers what a test has prepared."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from controller.domain.errors import BusUnavailable
from controller.domain.messages import ConsoleRead, GuestReport, GuestsChanged, Message, ReadConsole


@dataclass
class FakeBus:
    """A ``Sender`` in memory. While it is ``down`` it loses doorbells and refuses the rest, as without a broker."""

    sent: list[Message] = field(default_factory=list)
    down: bool = False
    consoles: dict[str, ConsoleRead] = field(default_factory=dict)  # by instance: the answers to ReadConsole

    def send(self, message: Message) -> None:
        if self.down:
            raise BusUnavailable(what="The message bus", reason="it is down")
        self.sent.append(message)

    def send_all(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self.send(message)

    def notify(self, messages: Iterable[Message]) -> None:
        if not self.down:
            self.send_all(list(messages))

    def call(self, message: Message, timeout_s: float) -> Message:
        if isinstance(message, ReadConsole) and message.instance_id in self.consoles:
            return self.consoles[message.instance_id]
        raise TimeoutError(f"no answer to {message.KIND} within {timeout_s} s")

    def take(self, kind: type[Any]) -> list[Any]:
        """The messages of a kind that were sent since the last look."""
        found = [m for m in self.sent if isinstance(m, kind)]
        self.sent = [m for m in self.sent if not isinstance(m, kind)]
        return found

    def reports(self) -> list[GuestReport]:
        """Every report of an agent so far, in their order."""
        return [r for m in self.sent if isinstance(m, GuestsChanged) for r in m.reports]
