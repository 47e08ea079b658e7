"""What every message has: its kind, its version, its queue."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

# Where heartbeats go. A newer one supersedes an older one, so this queue may drop the oldest.
HEARTBEATS = "heartbeats"
# Where reports go; agents and controllers of 0.1 have their heartbeats there, too.
EVENTS = "events"
# The queue of the calls to the network node; its doorbells have another.
NETWORK_OBSERVATION = "network-evidence"
_TO_HOST = "compute."
_KINDS: "dict[str, type[Message]]" = {}


@dataclass(frozen=True)
class Message:
    """Base of all messages; a class that names its ``KIND`` can be read from the bus (``kinds``).

    ``queue`` is where it goes, ``FALLBACK`` where it goes if there is no such queue. ``SINCE`` is the first version of
    the messages that has this kind: it is not sent to a reader of an older one. ``ASKED_FOR``: its receiver has asked
    for it, so it can read it.
    """

    KIND: ClassVar[str]
    ASKED_FOR: ClassVar[bool] = False
    FALLBACK: ClassVar[str] = ""
    SINCE: ClassVar[int] = 1

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "KIND" in vars(cls):
            _KINDS[cls.KIND] = cls

    @property
    def queue(self) -> str:
        """The name of the queue that this message is for."""
        raise NotImplementedError

    def for_oldest(self) -> "Sequence[Message]":
        """What says the same to a service of version 1, if that ignores a field that matters."""
        return (self,)


@dataclass(frozen=True)
class Answer(Message):
    """The answer to a call (``Bus.call``): it goes to the caller's own queue."""

    @property
    def queue(self) -> str:
        raise TypeError("an answer goes to the caller's own queue")


@dataclass(frozen=True)
class AgentCommand(Message):
    """To the agent of one host, where ``compute_agent.commands`` has a handler for each kind.

    ``ANSWER`` is what the handler answers; None for a command that is not a call.
    """

    ANSWER: ClassVar[type[Answer] | None] = None
    host: str

    @property
    def queue(self) -> str:
        return host_queue(self.host)


def kinds() -> dict[str, type[Message]]:
    """Every class of messages by its kind."""
    return dict(_KINDS)


def host_queue(host: str) -> str:
    """The queue of one host's agent."""
    return f"{_TO_HOST}{host}"


def host_of(queue: str) -> str:
    """The host whose agent has this queue; empty if it is no agent's."""
    return queue.removeprefix(_TO_HOST) if queue.startswith(_TO_HOST) else ""
