"""Commands to the agent of one host, and what it answers to those that are calls."""

from dataclasses import dataclass

from controller.domain.messages.guests import GuestSpec
from controller.domain.messages.message import AgentCommand, Answer
from controller.domain.messages.observations import HostObservation

# Epochs of hosts are below it, as are all whole numbers that every reader of JSON can tell apart.
END_OF_EPOCHS = 2**53


@dataclass(frozen=True)
class ReconcileGuests(AgentCommand):
    """To the agent of one host: make each guest as desired. Doing it twice is doing it once.

    It is for an agent of this ``epoch`` alone, and until ``expires_at`` (ISO 8601, the sender's clock; empty: never).
    Epoch 0: the sender is of release 0.1.
    """

    KIND = "ReconcileGuests"
    guests: tuple[GuestSpec, ...]
    epoch: int = 0
    expires_at: str = ""


@dataclass(frozen=True)
class HostAccepted(AgentCommand):
    """To the agent of one host, the answer to a heartbeat that ``asks``: from now on ``epoch`` is yours.

    ``runs`` are the instances on this host whose guests are to run: after a boot (``boot_id``) these are started, no
    others. ``at`` is the controller's clock, ISO 8601, ``sequence`` the number of the heartbeat that is answered.
    With ``old_senders``, commands of epoch 0 are still to be carried out: there is a sender of release 0.1.
    """

    KIND = "HostAccepted"
    SINCE = 2
    ASKED_FOR = True
    boot_id: str
    epoch: int
    at: str
    sequence: int
    runs: tuple[str, ...] = ()
    old_senders: bool = False


@dataclass(frozen=True)
class RemoveImages(AgentCommand):
    """To the agent of one host: nothing needs these images (checksums) any more; those under an overlay stay."""

    KIND = "RemoveImages"
    SINCE = 2
    images: tuple[str, ...]


@dataclass(frozen=True)
class ConsoleRead(Answer):
    """The answer to ReadConsole; ``data`` is base64, empty when the guest has written nothing."""

    KIND = "ConsoleRead"
    instance_id: str
    data: str
    error: str = ""


@dataclass(frozen=True)
class ReadConsole(AgentCommand):
    """To the agent of one host: answer with the end of a guest's serial console (a call: see ``Bus.call``)."""

    KIND = "ReadConsole"
    ANSWER = ConsoleRead
    instance_id: str
    max_bytes: int = 65536


@dataclass(frozen=True)
class ObserveHost(AgentCommand):
    """To the agent of one host: answer with what is there, from whatever source (a call: see ``Bus.call``)."""

    KIND = "ReadHostEvidence"
    ANSWER = HostObservation


@dataclass(frozen=True)
class RemoveTaps(AgentCommand):
    """To the agent of one host: remove those of these taps that no guest holds open, answer with what is there then."""

    KIND = "RemoveTaps"
    ANSWER = HostObservation
    taps: tuple[str, ...]
