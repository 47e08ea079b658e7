"""What a heartbeat shows of an instance's guest, and the event that follows: one table, with a reason for no event."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from controller.domain.guests import Power
from controller.domain.messages import UNKNOWN_GENERATION, GuestState
from controller.domain.states import Event, State


class Sight(StrEnum):
    """How a heartbeat shows a guest. UNTOLD: its agent has no request for it, as its journal is new."""

    RUNNING = "RUNNING"
    SHUT_OFF = "SHUT_OFF"
    ABSENT = "ABSENT"
    UNTOLD_RUNNING = "UNTOLD_RUNNING"
    UNTOLD_SHUT_OFF = "UNTOLD_SHUT_OFF"


S, E, V = State, Event, Sight

# The event that follows. Reports raise the same events sooner: this is for reports that were lost.
SIGHTINGS: Mapping[tuple[State, Sight], Event] = MappingProxyType(
    {
        **{
            (state, sight): event
            for state in (S.BUILDING, S.STOPPING, S.STARTING, S.REBOOTING, S.UNKNOWN)
            for sight, event in ((V.RUNNING, E.RUNNING), (V.SHUT_OFF, E.SHUT_OFF))
        },
        (S.ACTIVE, V.SHUT_OFF): E.SHUT_OFF,
        (S.STOPPED, V.RUNNING): E.RUNNING,
        **{
            # Its agent has lost its journal; the guest's power is right all the same.
            (state, sight): event
            for state in (S.ACTIVE, S.STOPPED, S.UNKNOWN)
            for sight, event in ((V.UNTOLD_RUNNING, E.RUNNING), (V.UNTOLD_SHUT_OFF, E.SHUT_OFF))
        },
        (S.ACTIVE, V.ABSENT): E.SHUT_OFF,
        (S.UNKNOWN, V.ABSENT): E.SHUT_OFF,
    }
)

# Applied immediately: the request has been carried out, or the state is UNKNOWN. All else is applied only if the
# instance has been in its state for a while, as the heartbeat may be older than the state. By then an agent that knows
# this generation as another request, because the database was restored, has answered that it is ahead.
AT_ONCE = frozenset(
    {
        (S.BUILDING, V.RUNNING),
        (S.STARTING, V.RUNNING),
        (S.STOPPING, V.SHUT_OFF),
        (S.UNKNOWN, V.RUNNING),
        (S.UNKNOWN, V.SHUT_OFF),
        (S.UNKNOWN, V.UNTOLD_RUNNING),
        (S.UNKNOWN, V.UNTOLD_SHUT_OFF),
    }
)

_NOT_ON_A_HOST = "it is on no host, so none can show it"
_AS_IT_SAYS = "the row says so already"
_AT_WORK = "its agent is at work on its guest and will report; its deadline bounds that"
_TO_BE_TOLD = "its agent does not have the newest request: the sweep sends it again"
_REMOVED_WITH_GONE = "it is to be removed, with its disk: only GONE says that it has been"
SIGHT_REFUSALS: Mapping[tuple[State, Sight], str] = MappingProxyType(
    {
        **{(state, sight): _NOT_ON_A_HOST for state in (S.REQUESTED, S.DELETED) for sight in Sight},
        **{(state, sight): _REMOVED_WITH_GONE for state in (S.DELETING, S.ERROR) for sight in Sight},
        **{(state, V.ABSENT): _AT_WORK for state in (S.BUILDING, S.STOPPING, S.STARTING, S.REBOOTING)},
        **{
            (state, sight): _TO_BE_TOLD
            for state in (S.BUILDING, S.STOPPING, S.STARTING, S.REBOOTING)
            for sight in (V.UNTOLD_RUNNING, V.UNTOLD_SHUT_OFF)
        },
        (S.ACTIVE, V.RUNNING): _AS_IT_SAYS,
        (S.STOPPED, V.SHUT_OFF): _AS_IT_SAYS,
        (
            S.STOPPED,
            V.ABSENT,
        ): "a guest that is off need not be defined: its next start finds its disk, or reports that it is missing",
    }
)


def sight_of(guest: GuestState | None) -> Sight:
    """How a heartbeat shows this guest; None: it does not."""
    if guest is None:
        return Sight.ABSENT
    running = guest.power is Power.RUNNING
    if guest.generation == UNKNOWN_GENERATION:
        return Sight.UNTOLD_RUNNING if running else Sight.UNTOLD_SHUT_OFF
    return Sight.RUNNING if running else Sight.SHUT_OFF
