"""A bus for commands, most of which send nothing: kombu is imported, and the bus made, with the first message."""

from collections.abc import Iterable, Sequence
from functools import cached_property

from controller.bus.sender import Sender
from controller.conf import Settings
from controller.domain.messages import Message


class LateBus:
    """A ``Sender`` that is a ``Bus`` once it is used."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @cached_property
    def _bus(self) -> Sender:
        from controller.bus.bus import Bus

        return Bus(self._settings)

    def send(self, message: Message) -> None:
        """See ``Sender``."""
        self._bus.send(message)

    def send_all(self, messages: Sequence[Message]) -> None:
        """See ``Sender``."""
        self._bus.send_all(messages)

    def notify(self, messages: Iterable[Message]) -> None:
        """See ``Sender``. Without messages nothing is made."""
        if waiting := list(messages):
            self._bus.notify(waiting)

    def call(self, message: Message, timeout_s: float) -> Message:
        """See ``Sender``."""
        return self._bus.call(message, timeout_s)
