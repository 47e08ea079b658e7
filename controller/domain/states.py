"""The life of an instance: one table, one deadline for each state, nothing elsewhere."""

from collections.abc import Mapping
from types import MappingProxyType

from controller.domain.errors import IncorrectInstanceState
from controller.domain.open_enum import OpenEnum


class State(OpenEnum):
    """Where an instance is in its life; the only state column there is."""

    REQUESTED = "REQUESTED"
    BUILDING = "BUILDING"
    ACTIVE = "ACTIVE"
    STOPPING = "STOPPING"
    STOPPED = "STOPPED"
    STARTING = "STARTING"
    REBOOTING = "REBOOTING"
    DELETING = "DELETING"
    DELETED = "DELETED"
    ERROR = "ERROR"
    UNKNOWN = "UNKNOWN"


class Event(OpenEnum):
    """What can happen to an instance: asked for by a user, seen by an agent, or decided by a sweep."""

    # a user's wish
    STOP = "STOP"
    START = "START"
    REBOOT = "REBOOT"
    DELETE = "DELETE"
    # the scheduler's answer
    PLACED = "PLACED"
    # an agent's report: the guest runs, is shut off, is gone with all that it had, could not be made so
    RUNNING = "RUNNING"
    SHUT_OFF = "SHUT_OFF"
    GONE = "GONE"
    FAILED = "FAILED"
    # a sweep's verdict
    EXPIRED = "EXPIRED"
    HOST_LOST = "HOST_LOST"
    # an operator's verdict: its host will never be back
    HOST_GONE = "HOST_GONE"


S, E = State, Event

TRANSITIONS: Mapping[tuple[State, Event], State] = MappingProxyType(
    {
        (S.REQUESTED, E.PLACED): S.BUILDING,
        (S.REQUESTED, E.FAILED): S.ERROR,
        (S.REQUESTED, E.EXPIRED): S.ERROR,
        (S.REQUESTED, E.DELETE): S.DELETED,  # nothing was claimed, nothing is to be undone
        (S.BUILDING, E.RUNNING): S.ACTIVE,
        (S.BUILDING, E.SHUT_OFF): S.STOPPED,  # it booted and went off before its agent had said that it runs
        (S.BUILDING, E.FAILED): S.ERROR,
        (S.BUILDING, E.EXPIRED): S.ERROR,
        (S.BUILDING, E.DELETE): S.DELETING,
        (S.ACTIVE, E.RUNNING): S.ACTIVE,
        (S.ACTIVE, E.SHUT_OFF): S.STOPPED,  # the guest powered itself off, or its process died
        (S.ACTIVE, E.STOP): S.STOPPING,
        (S.ACTIVE, E.REBOOT): S.REBOOTING,
        (S.ACTIVE, E.DELETE): S.DELETING,
        (S.ACTIVE, E.HOST_LOST): S.UNKNOWN,
        (S.STOPPING, E.SHUT_OFF): S.STOPPED,
        (S.STOPPING, E.RUNNING): S.ACTIVE,  # it was shut off and started on its host before that was reported
        (S.STOPPING, E.FAILED): S.ACTIVE,  # the agent says that it could not: the guest still runs
        (S.STOPPING, E.EXPIRED): S.UNKNOWN,
        (S.STOPPING, E.DELETE): S.DELETING,
        (S.STOPPED, E.SHUT_OFF): S.STOPPED,
        (S.STOPPED, E.START): S.STARTING,
        (S.STOPPED, E.RUNNING): S.ACTIVE,  # an operator started it behind our back
        (S.STOPPED, E.DELETE): S.DELETING,
        (S.STARTING, E.RUNNING): S.ACTIVE,
        (S.STARTING, E.SHUT_OFF): S.STOPPED,  # as BUILDING
        (S.STARTING, E.FAILED): S.STOPPED,
        (S.STARTING, E.EXPIRED): S.UNKNOWN,
        (S.STARTING, E.DELETE): S.DELETING,
        (S.REBOOTING, E.RUNNING): S.ACTIVE,
        (S.REBOOTING, E.SHUT_OFF): S.STOPPED,
        (S.REBOOTING, E.FAILED): S.STOPPED,
        (S.REBOOTING, E.EXPIRED): S.UNKNOWN,
        (S.REBOOTING, E.STOP): S.STOPPING,
        (S.REBOOTING, E.DELETE): S.DELETING,
        (S.DELETING, E.GONE): S.DELETED,
        (S.DELETING, E.DELETE): S.DELETING,
        # An accepted delete ends with GONE only: what fails is tried again, what is overdue is shown.
        (S.DELETING, E.FAILED): S.DELETING,
        (S.DELETING, E.EXPIRED): S.DELETING,
        (S.DELETED, E.DELETE): S.DELETED,
        (S.ERROR, E.DELETE): S.DELETING,
        (S.ERROR, E.GONE): S.ERROR,  # cleaned up after a failure: the claim is released, the reason stays
        (S.ERROR, E.FAILED): S.ERROR,  # it could not be removed: tried again
        (S.UNKNOWN, E.RUNNING): S.ACTIVE,
        (S.UNKNOWN, E.SHUT_OFF): S.STOPPED,
        (S.UNKNOWN, E.FAILED): S.UNKNOWN,  # a wish failed too late: the guest is as its host will show it
        (S.UNKNOWN, E.HOST_LOST): S.UNKNOWN,
        (S.UNKNOWN, E.STOP): S.STOPPING,
        (S.UNKNOWN, E.DELETE): S.DELETING,
        **{
            # Its agent has removed it, disk and all, by a wish that the row does not know: the database was restored
            # from a backup. There is nothing left to hold a claim for.
            (state, E.GONE): S.ERROR
            for state in (S.BUILDING, S.ACTIVE, S.STOPPING, S.STOPPED, S.STARTING, S.REBOOTING, S.UNKNOWN)
        },
        **{
            (state, E.HOST_GONE): S.ERROR  # with its disk; claim and address are given back
            for state in (
                S.BUILDING,
                S.ACTIVE,
                S.STOPPING,
                S.STOPPED,
                S.STARTING,
                S.REBOOTING,
                S.ERROR,
                S.UNKNOWN,
            )
        },
        (S.DELETING, E.HOST_GONE): S.DELETED,
    }
)

# What an agent reports.
REPORTS = (E.RUNNING, E.SHUT_OFF, E.GONE, E.FAILED)
_NO_HOST = "no host has it yet, so no agent can speak of it"
_LATE_FAILURE = "a wish failed that is not waited for any more: the guest is as its host shows it"
_BEING_REMOVED = "its host is to remove it: only GONE ends that"
_ENDED = "it has ended: what a host still has of it is a stray guest"
# Reports that change nothing, and why. Each state has each report either here or in the table above.
REFUSALS: Mapping[tuple[State, Event], str] = MappingProxyType(
    {
        **{(S.REQUESTED, report): _NO_HOST for report in (E.RUNNING, E.SHUT_OFF, E.GONE)},
        (S.ACTIVE, E.FAILED): _LATE_FAILURE,
        (S.STOPPED, E.FAILED): _LATE_FAILURE,
        (S.DELETING, E.RUNNING): _BEING_REMOVED,
        (S.DELETING, E.SHUT_OFF): _BEING_REMOVED,
        **{(S.DELETED, report): _ENDED for report in REPORTS},
        (S.ERROR, E.RUNNING): _BEING_REMOVED,
        (S.ERROR, E.SHUT_OFF): _BEING_REMOVED,
    }
)

# Seconds that an instance may stay in a state before the sweep raises EXPIRED; a state that is not here may last.
DEADLINE_S: Mapping[State, int] = MappingProxyType(
    {
        S.REQUESTED: 120,
        S.BUILDING: 900,
        S.STOPPING: 180,
        S.STARTING: 300,
        S.REBOOTING: 300,
        S.DELETING: 600,
    }
)

TERMINAL = frozenset({S.DELETED})
# A user's wish is under way: a message may have been lost, so the sweep rings again until the state moves.
TRANSITIONAL = frozenset(DEADLINE_S)


def next_state(state: State, event: Event) -> State:
    """The state that ``event`` leads to.

    Raises:
        IncorrectInstanceState: the table has no such row.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IncorrectInstanceState(state=state, event=event) from None


def allows(state: State, event: Event) -> bool:
    """Whether the table has a row for ``event`` in ``state``."""
    return (state, event) in TRANSITIONS


def states_that_allow(event: Event) -> tuple[State, ...]:
    """Every state in which ``event`` may happen, for a conditional UPDATE's WHERE."""
    return tuple(s for s in State if (s, event) in TRANSITIONS)
