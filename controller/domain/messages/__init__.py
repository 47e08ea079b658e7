"""What travels on the bus: typed, versioned, flat JSON; a file for each addressee.

A command is imperative and has one addressee; an event is in the past tense. Fields are added, never edited
or removed: a reader ignores fields that it does not know and fills in the default of those it misses, so that
two releases can talk to each other (``controller.domain.wire``). ``tests/unit/golden/messages`` holds one file for
each message.
"""

import types
from collections.abc import Mapping

from controller.domain.messages.commands import (
    END_OF_EPOCHS,
    ConsoleRead,
    HostAccepted,
    ObserveHost,
    ReadConsole,
    ReconcileGuests,
    RemoveImages,
    RemoveTaps,
)
from controller.domain.messages.guests import (
    UNKNOWN_GENERATION,
    GuestReport,
    GuestSpec,
    GuestState,
    ImageSpec,
    NicSpec,
    OutdatedRequest,
)
from controller.domain.messages.message import (
    EVENTS,
    HEARTBEATS,
    NETWORK_OBSERVATION,
    AgentCommand,
    Answer,
    Message,
    host_of,
    host_queue,
    kinds,
)
from controller.domain.messages.observations import (
    DiskState,
    HostObservation,
    KeptDisk,
    NetworkObservation,
    ObserveNetworks,
    ReconcileNetworks,
    SegmentObservation,
)
from controller.domain.messages.reports import PROBE_PENDING, GuestsChanged, HostReported
from controller.domain.messages.services import PrepareNetworks, ScheduleReservation

MESSAGES: Mapping[str, type[Message]] = types.MappingProxyType(kinds())

__all__ = [
    "END_OF_EPOCHS",
    "EVENTS",
    "HEARTBEATS",
    "MESSAGES",
    "NETWORK_OBSERVATION",
    "PROBE_PENDING",
    "UNKNOWN_GENERATION",
    "AgentCommand",
    "Answer",
    "ConsoleRead",
    "DiskState",
    "GuestReport",
    "GuestSpec",
    "GuestState",
    "GuestsChanged",
    "HostAccepted",
    "HostObservation",
    "HostReported",
    "ImageSpec",
    "KeptDisk",
    "Message",
    "NetworkObservation",
    "NicSpec",
    "ObserveHost",
    "ObserveNetworks",
    "OutdatedRequest",
    "PrepareNetworks",
    "ReadConsole",
    "ReconcileGuests",
    "ReconcileNetworks",
    "RemoveImages",
    "RemoveTaps",
    "ScheduleReservation",
    "SegmentObservation",
    "host_of",
    "host_queue",
]
