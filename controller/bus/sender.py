"""What operations and handlers need of a bus; without kombu, so that a command that sends nothing starts at once."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from controller.domain.messages import Message


class Sender(Protocol):
    """What handlers and operations need of a bus: the real one, or a simulation's."""

    def send(self, message: Message) -> None:
        """Deliver to the broker; returns once the broker has it. Raises BusUnavailable."""

    def send_all(self, messages: Sequence[Message]) -> None:
        """Deliver all of them as ``send`` does one, for the price of one wait. Raises BusUnavailable."""

    def notify(self, messages: Iterable[Message]) -> None:
        """Try to deliver; never raises: a sweep notifies again."""

    def call(self, message: Message, timeout_s: float) -> Message:
        """Send and wait for the answer. Raises BusUnavailable, TimeoutError, NoReceiverError."""


class NoReceiverError(TimeoutError):
    """No queue takes the question: there is no use in waiting for an answer."""
