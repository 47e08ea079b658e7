"""What travels on the bus: typed, versioned, flat JSON.

A command is imperative and has one addressee; an event is in the past tense. Fields are added, never edited
or removed: a reader ignores fields that it does not know and fills in the default of those it misses, so that
two releases can talk to each other (``controller.domain.wire``). ``tests/unit/golden/messages`` holds one file for
each message.
"""

import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from controller.domain.guests import Desired, Power
from controller.domain.states import Event

# What ``HostReported.probe_error`` says until the first run of the probe has ended.
PROBE_PENDING = "pending"
_TO_HOST = "compute."
# The queue of the calls to the network node; its doorbells have another.
NETWORK_OBSERVATION = "network-evidence"
# Where heartbeats go. A newer one supersedes an older one, so this queue may drop the oldest.
HEARTBEATS = "heartbeats"
# Where reports go; agents and controllers of 0.1 have their heartbeats there, too.
EVENTS = "events"
# The generation of a guest that is there, but of which its agent was never told, or has lost what it was told.
UNTOLD = -1
# Epochs of hosts are below it, as are all whole numbers that every reader of JSON can tell apart.
END_OF_EPOCHS = 2**53


@dataclass(frozen=True)
class Message:
    """Base of all messages; ``queue`` is where it goes, ``FALLBACK`` where it goes while no such queue is there.

    ``SINCE`` is the first version of the messages that has this kind: it is not sent to what reads an older one only.
    ``ASKED_FOR``: whoever gets it has asked for it, so it can read it.
    """

    KIND: ClassVar[str]
    ASKED_FOR: ClassVar[bool] = False
    FALLBACK: ClassVar[str] = ""
    SINCE: ClassVar[int] = 1

    @property
    def queue(self) -> str:
        """The name of the queue that this message is for."""
        raise NotImplementedError

    def for_oldest(self) -> "Sequence[Message]":
        """What says the same to a service of version 1: where that ignores a field that matters, something else."""
        return (self,)


# --- parts -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NicSpec:
    """One network interface of a guest."""

    network_id: str
    vlan: int
    mac: str
    ip: str
    prefix_length: int
    physical_network: str = "default"


@dataclass(frozen=True)
class ImageSpec:
    """The image a guest's disk begins as; ``url`` is where this agent may fetch it (file, http or https)."""

    image_id: str
    sha256: str
    size_bytes: int
    format: str
    url: str
    virtual_size_bytes: int = 0


@dataclass(frozen=True)
class GuestSpec:
    """A guest, wholly described: what an agent needs to make it without asking anybody.

    ``generation`` rises with every wish; an agent ignores what is older than what it has seen.
    ``reboot`` asks for one restart at this generation. ``keep_disk``: of a guest that is to be ABSENT, the disk is set
    aside; only its owner's delete removes it at once. ``may_create``: a guest without a disk is made from its
    image; else it is lost, and not replaced by an empty one. ``wished_us`` tells one reboot from another of the same
    generation, which a database that was restored has counted twice: microseconds since 1970, 0: not known.
    """

    instance_id: str
    generation: int
    desired: Desired
    project_id: str
    name: str
    vcpus: int
    memory_mib: int
    disk_gib: int
    architecture: str = "x86_64"
    image: ImageSpec | None = None
    nics: tuple[NicSpec, ...] = ()
    reboot: bool = False
    keep_disk: bool = True
    may_create: bool = True
    wished_us: int = 0


@dataclass(frozen=True)
class GuestReport:
    """What became of a guest at a generation; ``reason`` is for a person.

    ``cause`` is an ``OffCause`` where the guest went off by itself.
    """

    instance_id: str
    generation: int
    event: Event
    reason: str = ""
    cause: str = ""


@dataclass(frozen=True)
class OutdatedRequest:
    """A command that its agent did not heed: it asked for ``generation``, the agent is at ``newest`` already.

    Equal ones: the agent knows this generation as another wish.
    """

    instance_id: str
    generation: int
    newest: int


@dataclass(frozen=True)
class GuestState:
    """A guest as a heartbeat tells it: the newest generation that was carried out, and its power."""

    instance_id: str
    generation: int
    power: Power


# --- doorbells -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ScheduleReservation(Message):
    """To a scheduler: the rows of this reservation that are REQUESTED want a host, and those of ``more``. One of
    version 1 does not know of ``more``: it gets a doorbell for each."""

    KIND = "ScheduleReservation"
    reservation_id: str
    more: tuple[str, ...] = ()

    @property
    def queue(self) -> str:
        return "schedule"

    def for_oldest(self) -> Sequence[Message]:
        return [ScheduleReservation(r) for r in (self.reservation_id, *self.more)] if self.more else (self,)


@dataclass(frozen=True)
class PrepareNetworks(Message):
    """To the network service: make bridges, DHCP and DNS of these networks equal to the rows, then have the
    hosts build these instances. With no instances: only make equal."""

    KIND = "WireInstances"
    network_ids: tuple[str, ...]
    instance_ids: tuple[str, ...] = ()

    @property
    def queue(self) -> str:
        return "network"


# --- to one agent ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReconcileGuests(Message):
    """To the agent of one host: make each guest as desired. Doing it twice is doing it once.

    It is for an agent of this ``epoch`` alone, and until ``expires_at`` (ISO 8601, the sender's clock; empty: never).
    Epoch 0: the sender is of release 0.1.
    """

    KIND = "ReconcileGuests"
    host: str
    guests: tuple[GuestSpec, ...]
    epoch: int = 0
    expires_at: str = ""

    @property
    def queue(self) -> str:
        return host_queue(self.host)


@dataclass(frozen=True)
class HostAccepted(Message):
    """To the agent of one host, the answer to a heartbeat that ``asks``: from now on ``epoch`` is yours.

    ``runs`` are the instances on this host whose guests are to run: after a boot (``boot_id``) these are started, no
    others. ``at`` is the controller's clock, ISO 8601, ``sequence`` the number of the heartbeat that is answered.
    With ``old_senders``, commands of epoch 0 are still to be carried out: a sender of release 0.1 is at work.
    """

    KIND = "HostAccepted"
    SINCE = 2
    ASKED_FOR = True
    host: str
    boot_id: str
    epoch: int
    at: str
    sequence: int
    runs: tuple[str, ...] = ()
    old_senders: bool = False

    @property
    def queue(self) -> str:
        return host_queue(self.host)


@dataclass(frozen=True)
class RemoveImages(Message):
    """To the agent of one host: nothing needs these images (checksums) any more; those under an overlay stay."""

    KIND = "RemoveImages"
    SINCE = 2
    host: str
    images: tuple[str, ...]

    @property
    def queue(self) -> str:
        return host_queue(self.host)


@dataclass(frozen=True)
class ReadConsole(Message):
    """To the agent of one host: answer with the end of a guest's serial console (a call: see ``Bus.call``)."""

    KIND = "ReadConsole"
    host: str
    instance_id: str
    max_bytes: int = 65536

    @property
    def queue(self) -> str:
        return host_queue(self.host)


@dataclass(frozen=True)
class ConsoleRead(Message):
    """The answer to ReadConsole; ``data`` is base64, empty when the guest has written nothing."""

    KIND = "ConsoleRead"
    instance_id: str
    data: str
    error: str = ""

    @property
    def queue(self) -> str:
        raise TypeError("an answer goes to the caller's own queue")


# --- from the agents -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GuestsChanged(Message):
    """From an agent: a batch of what became of its guests, and of what it was told too late."""

    KIND = "GuestsChanged"
    host: str
    reports: tuple[GuestReport, ...]
    outdated: tuple[OutdatedRequest, ...] = ()

    @property
    def queue(self) -> str:
        return EVENTS


@dataclass(frozen=True)
class HostReported(Message):
    """From an agent, now and then: I live, this is what I have, these are my guests.

    ``at`` is the agent's own clock, ISO 8601; only its difference from the receiver's is ever used, to warn.
    ``images`` are checksums. ``allowed_macs`` is None where no probe says which MAC addresses the host may carry, or
    has not said it yet; ``probe_error`` tells why not: PROBE_PENDING, or for a person what went wrong.
    ``sequence`` rises with each heartbeat of a host, so that a late one is known; 0: this one has no number.
    ``epoch`` is the one that the agent obeys, 0: none yet. It ``asks`` for HostAccepted until it has one for this boot.
    ``pending`` are guests that the agent has work in hand for: what they are now is not what they will be.
    ``remarks`` are for an operator.
    ``speaks`` is the newest version of the messages that the agent can read; 0.1 says neither this nor its release.
    ``remarks`` are for an operator. ``guest_overhead_mib`` is what a guest takes of the host's memory beside its own.
    """

    KIND = "HostReported"
    FALLBACK = EVENTS
    host: str
    at: str
    boot_id: str
    hypervisor: str
    vcpus: int
    memory_mib: int
    disk_gib: int
    architecture: str = "x86_64"
    zone: str = ""
    labels: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    guests: tuple[GuestState, ...] = ()
    sequence: int = 0
    disk_backends: tuple[str, ...] = ()
    allowed_macs: tuple[str, ...] | None = None
    probe_error: str = ""
    epoch: int = 0
    asks: bool = False
    pending: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    release: str = ""
    speaks: int = 1
    guest_overhead_mib: int = 0

    @property
    def queue(self) -> str:
        return HEARTBEATS


# --- the auditor's calls ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class ObserveHost(Message):
    """To the agent of one host: answer with what is there, whoever made it (a call: see ``Bus.call``)."""

    KIND = "ReadHostEvidence"
    host: str

    @property
    def queue(self) -> str:
        return host_queue(self.host)


@dataclass(frozen=True)
class RemoveTaps(Message):
    """To the agent of one host: remove those of these taps that no guest holds open, answer with what is there then."""

    KIND = "RemoveTaps"
    host: str
    taps: tuple[str, ...]

    @property
    def queue(self) -> str:
        return host_queue(self.host)


@dataclass(frozen=True)
class DiskState:
    """A disk, or what is left of one: whose, and the newest generation that was carried out for that instance."""

    instance_id: str
    generation: int


@dataclass(frozen=True)
class KeptDisk:
    """A disk that was set aside when its guest was removed; ``removed_at`` is ISO 8601, the agent's clock."""

    instance_id: str
    removed_at: str
    size_bytes: int


@dataclass(frozen=True)
class HostObservation(Message):
    """The answer to both: this cloud's domains, disks, and the names of its taps.

    ``pending`` are the instances that the agent has work in hand for, ``kept`` the disks of removed guests. With an
    ``error``, nothing else is true.
    """

    KIND = "HostEvidence"
    host: str
    guests: tuple[GuestState, ...] = ()
    disks: tuple[DiskState, ...] = ()
    taps: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    error: str = ""
    kept: tuple[KeptDisk, ...] = ()

    @property
    def queue(self) -> str:
        raise TypeError("an answer goes to the caller's own queue")


@dataclass(frozen=True)
class ObserveNetworks(Message):
    """To the network node: answer with what bridges, dnsmasq and nftables are (a call)."""

    KIND = "ReadNetworkEvidence"

    @property
    def queue(self) -> str:
        return NETWORK_OBSERVATION


@dataclass(frozen=True)
class ReconcileNetworks(Message):
    """To the network node: make all networks equal to their rows now, answer with what they are then (a call)."""

    KIND = "MendNetworks"

    @property
    def queue(self) -> str:
        return NETWORK_OBSERVATION


@dataclass(frozen=True)
class SegmentObservation:
    """One network on the network node, with a row or without.

    ``bridge``: it is there, up, with the gateway's address. ``servers`` are its living dnsmasq processes.
    ``lease_max`` is what dnsmasq's file says, -1 for nothing. ``served`` are MAC,IP,NAME as DHCP gives them,
    ``given`` MAC,IP of the lease file; ``wrong_options`` what the file has too much (+) or too little (-).
    """

    network_id: str
    bridge: bool
    servers: int
    lease_max: int
    served: tuple[str, ...] = ()
    given: tuple[str, ...] = ()
    wrong_options: tuple[str, ...] = ()


@dataclass(frozen=True)
class NetworkObservation(Message):
    """The answer to both; ``firewall`` is what the table has too much (+) or too little (-).

    Without ``host_side`` networks are rows only: then, and with an ``error``, nothing else is true.
    """

    KIND = "NetworkEvidence"
    host_side: bool
    segments: tuple[SegmentObservation, ...] = ()
    firewall: tuple[str, ...] = ()
    error: str = ""

    @property
    def queue(self) -> str:
        raise TypeError("an answer goes to the caller's own queue")


def host_queue(host: str) -> str:
    """The queue of one host's agent."""
    return f"{_TO_HOST}{host}"


def host_of(queue: str) -> str:
    """The host whose agent has this queue; empty where it is no agent's."""
    return queue.removeprefix(_TO_HOST) if queue.startswith(_TO_HOST) else ""


MESSAGES: Mapping[str, type[Message]] = types.MappingProxyType(
    {
        m.KIND: m
        for m in (
            ScheduleReservation,
            PrepareNetworks,
            ReconcileGuests,
            HostAccepted,
            RemoveImages,
            ReadConsole,
            ConsoleRead,
            GuestsChanged,
            HostReported,
            ObserveHost,
            RemoveTaps,
            HostObservation,
            ObserveNetworks,
            ReconcileNetworks,
            NetworkObservation,
        )
    }
)
