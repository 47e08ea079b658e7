"""What agents report: results of commands, and heartbeats."""

from dataclasses import dataclass

from controller.domain.messages.guests import GuestReport, GuestState, OutdatedRequest
from controller.domain.messages.message import EVENTS, HEARTBEATS, Message

# What ``HostReported.probe_error`` says until the first run of the probe has ended.
PROBE_PENDING = "pending"


@dataclass(frozen=True)
class GuestsChanged(Message):
    """From an agent: a batch of results of work on its guests, and of requests that came too late."""

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
    has not said it yet; ``probe_error`` says why not: PROBE_PENDING, or for a person what went wrong.
    ``sequence`` rises with each heartbeat of a host, so that a late one is known; 0: this one has no number.
    ``epoch`` is the one that the agent obeys, 0: none yet. It ``asks`` for HostAccepted until it has one for this boot.
    ``pending`` are guests that the agent has unfinished work for: their state is about to change.
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
