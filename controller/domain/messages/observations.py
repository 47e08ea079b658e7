"""The auditor's calls to the network node, and what hosts and network node answer to it."""

from dataclasses import dataclass

from controller.domain.messages.guests import GuestState
from controller.domain.messages.message import NETWORK_OBSERVATION, Answer, Message


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
class HostObservation(Answer):
    """The answer to both: this cloud's domains, disks, and the names of its taps.

    ``pending`` are the instances that the agent has unfinished work for, ``kept`` the disks of removed guests. With an
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
class NetworkObservation(Answer):
    """The answer to both; ``firewall`` is what the table has too much (+) or too little (-).

    Without ``host_side`` networks are rows only: then, and with an ``error``, nothing else is true.
    """

    KIND = "NetworkEvidence"
    host_side: bool
    segments: tuple[SegmentObservation, ...] = ()
    firewall: tuple[str, ...] = ()
    error: str = ""
