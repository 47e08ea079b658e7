"""The life of an instance: its states with all their traits, and one table of transitions.

A new state is one row of ``TRAITS``, its rows in ``TRANSITIONS`` (or ``REFUSALS``), and the code that raises its event.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from controller.domain.errors import IncorrectInstanceState
from controller.domain.guests import Desired
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
    """What can happen to an instance: requested by a user, reported by an agent, or decided by a sweep."""

    # requested by a user
    STOP = "STOP"
    START = "START"
    REBOOT = "REBOOT"
    DELETE = "DELETE"
    # decided by the scheduler
    PLACED = "PLACED"
    # reported by an agent: the guest runs, is shut off, was removed with its disk; the request failed
    RUNNING = "RUNNING"
    SHUT_OFF = "SHUT_OFF"
    GONE = "GONE"
    FAILED = "FAILED"
    # decided by a sweep
    EXPIRED = "EXPIRED"
    HOST_LOST = "HOST_LOST"
    # decided by an operator: its host was force-removed
    HOST_GONE = "HOST_GONE"


class Claim(StrEnum):
    """Whether an instance in a state holds a share of a host (and its lease)."""

    NONE = "NONE"
    HELD = "HELD"
    UNTIL_GONE = "UNTIL_GONE"  # until its host has reported GONE: it may or may not be


@dataclass(frozen=True, kw_only=True)
class Traits:
    """Everything that depends on a state alone.

    ``desired``: what its host is to make of the guest; None: nothing is asked of it.
    ``deadline_s``: seconds until the sweep raises EXPIRED, with ``overdue`` as the reason; None: it may last.
    ``terminal``: no event leads out of it.
    ``counted``: it counts against its project's quota.
    ``served``: its network has to know it: DHCP entry and firewall rules.
    ``deleted``: its owner has deleted it, so its guest may go with its disk; any other removal keeps the disk for a
    while.
    ``by_user``: if the row has no other reason, the instance is in this state because its user asked for it.
    ``ec2``: code and name, https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_InstanceState.html
    ``ec2_check``: what DescribeInstanceStatus says of both of its checks.
    ``opennebula``: STATE and LCM_STATE, https://docs.opennebula.io/stable/integration_and_development/references/vm_states.html
    """

    desired: Desired | None
    claim: Claim
    ec2: tuple[int, str]
    opennebula: tuple[int, int]
    deadline_s: int | None = None
    overdue: str = ""
    terminal: bool = False
    counted: bool = True
    served: bool = False
    deleted: bool = False
    by_user: bool = False
    ec2_check: str = "not-applicable"


_NOT_RUNNING_IN_TIME = "its host did not report it running in time"

TRAITS: Mapping[State, Traits] = MappingProxyType(
    {
        State.REQUESTED: Traits(
            desired=None,
            claim=Claim.NONE,
            ec2=(0, "pending"),
            opennebula=(1, 0),  # PENDING
            deadline_s=120,
            overdue="no scheduler placed it in time, or all hosts were down",
        ),
        State.BUILDING: Traits(
            desired=Desired.RUNNING,
            claim=Claim.HELD,
            ec2=(0, "pending"),
            opennebula=(3, 2),  # ACTIVE, BOOT
            deadline_s=900,
            overdue=_NOT_RUNNING_IN_TIME,
        ),
        State.ACTIVE: Traits(
            desired=Desired.RUNNING,
            claim=Claim.HELD,
            ec2=(16, "running"),
            ec2_check="ok",
            opennebula=(3, 3),  # ACTIVE, RUNNING
            served=True,
        ),
        State.STOPPING: Traits(
            desired=Desired.SHUT_OFF,
            claim=Claim.HELD,
            ec2=(64, "stopping"),
            opennebula=(3, 18),  # ACTIVE, SHUTDOWN_POWEROFF
            deadline_s=180,
            overdue="its host did not report it shut off in time",
            served=True,
            by_user=True,
        ),
        State.STOPPED: Traits(
            desired=Desired.SHUT_OFF,
            claim=Claim.HELD,
            ec2=(80, "stopped"),
            opennebula=(8, 0),  # POWEROFF
            served=True,
            by_user=True,
        ),
        State.STARTING: Traits(
            desired=Desired.RUNNING,
            claim=Claim.HELD,
            ec2=(0, "pending"),
            opennebula=(3, 20),  # ACTIVE, BOOT_POWEROFF
            deadline_s=300,
            overdue=_NOT_RUNNING_IN_TIME,
            served=True,
        ),
        State.REBOOTING: Traits(
            desired=Desired.RUNNING,
            claim=Claim.HELD,
            ec2=(16, "running"),
            ec2_check="initializing",
            opennebula=(3, 3),  # ACTIVE, RUNNING: OpenNebula has no state for it
            deadline_s=300,
            overdue=_NOT_RUNNING_IN_TIME,
            served=True,
        ),
        State.DELETING: Traits(
            desired=Desired.ABSENT,
            claim=Claim.HELD,
            ec2=(32, "shutting-down"),
            opennebula=(3, 12),  # ACTIVE, SHUTDOWN
            deadline_s=600,
            overdue="its host did not report it gone in time; it is asked again and again: bring the host back, or "
            "`pileus host remove --force`",
            counted=False,
            deleted=True,
            by_user=True,
        ),
        State.DELETED: Traits(
            desired=Desired.ABSENT,
            claim=Claim.NONE,
            ec2=(48, "terminated"),
            opennebula=(6, 0),  # DONE
            terminal=True,
            counted=False,
            deleted=True,
            by_user=True,
        ),
        State.ERROR: Traits(
            desired=Desired.ABSENT,
            claim=Claim.UNTIL_GONE,
            ec2=(48, "terminated"),
            opennebula=(3, 36),  # ACTIVE, BOOT_FAILURE
            counted=False,
        ),
        # Lost contact never stops a guest: it counts as running, and its EC2 status check as impaired.
        State.UNKNOWN: Traits(
            desired=None,
            claim=Claim.HELD,
            ec2=(16, "running"),
            ec2_check="impaired",
            opennebula=(3, 16),  # ACTIVE, UNKNOWN
            served=True,
        ),
    }
)

DESIRED: Mapping[State, Desired] = MappingProxyType({s: t.desired for s, t in TRAITS.items() if t.desired})
DEADLINE_S: Mapping[State, int] = MappingProxyType({s: t.deadline_s for s, t in TRAITS.items() if t.deadline_s})
# A request is under way: a message may have been lost, so the sweep notifies again until the state changes.
TRANSITIONAL = frozenset(DEADLINE_S)
TERMINAL = frozenset(s for s, t in TRAITS.items() if t.terminal)
UNCOUNTED = frozenset(s for s, t in TRAITS.items() if not t.counted)
# On a host, with a claim and a lease; in MAYBE_PLACED it may have both until its host has reported GONE.
PLACED = tuple(s for s, t in TRAITS.items() if t.claim is Claim.HELD)
MAYBE_PLACED = tuple(s for s, t in TRAITS.items() if t.claim is Claim.UNTIL_GONE)
SERVED = frozenset(s for s, t in TRAITS.items() if t.served)
DELETED_BY_OWNER = frozenset(s for s, t in TRAITS.items() if t.deleted)
# Its guest is to be removed: only GONE ends that.
TO_BE_REMOVED = frozenset(s for s, t in TRAITS.items() if t.desired is Desired.ABSENT and not t.terminal)
# Its guest is to run after a boot of its host, too; UNKNOWN is left running.
RUNS_AFTER_BOOT = frozenset(
    s for s, t in TRAITS.items() if t.claim is Claim.HELD and t.desired in (Desired.RUNNING, None)
)


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
        (S.STOPPING, E.FAILED): S.ACTIVE,  # its agent reports that it could not: the guest still runs
        (S.STOPPING, E.EXPIRED): S.UNKNOWN,
        (S.STOPPING, E.DELETE): S.DELETING,
        (S.STOPPED, E.SHUT_OFF): S.STOPPED,
        (S.STOPPED, E.START): S.STARTING,
        (S.STOPPED, E.RUNNING): S.ACTIVE,  # an operator started it on its host
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
        # An accepted delete ends with GONE only: a failed one is tried again, an overdue one is shown.
        (S.DELETING, E.FAILED): S.DELETING,
        (S.DELETING, E.EXPIRED): S.DELETING,
        (S.DELETED, E.DELETE): S.DELETED,
        (S.ERROR, E.DELETE): S.DELETING,
        (S.ERROR, E.GONE): S.ERROR,  # cleaned up after a failure: the claim is released, the reason stays
        (S.ERROR, E.FAILED): S.ERROR,  # it could not be removed: tried again
        (S.UNKNOWN, E.RUNNING): S.ACTIVE,
        (S.UNKNOWN, E.SHUT_OFF): S.STOPPED,
        (S.UNKNOWN, E.FAILED): S.UNKNOWN,  # the request failed too late: the next heartbeat shows the guest's power
        (S.UNKNOWN, E.HOST_LOST): S.UNKNOWN,
        (S.UNKNOWN, E.STOP): S.STOPPING,
        (S.UNKNOWN, E.DELETE): S.DELETING,
        **{
            # Its agent has removed it with its disk, by a request that the row does not know: the database was
            # restored from a backup. Nothing is left to hold a claim for.
            (state, E.GONE): S.ERROR
            for state in PLACED
            if state not in DELETED_BY_OWNER
        },
        **{
            (state, E.HOST_GONE): S.ERROR  # with its disk; claim and address are given back
            for state in (*PLACED, *MAYBE_PLACED)
            if state not in DELETED_BY_OWNER
        },
        (S.DELETING, E.HOST_GONE): S.DELETED,
    }
)

# What an agent reports.
REPORTS = (E.RUNNING, E.SHUT_OFF, E.GONE, E.FAILED)
_NO_HOST = "it is on no host yet, so no agent can report it"
_LATE_FAILURE = "a request failed that is not awaited any more: heartbeats show the guest's power"
_BEING_REMOVED = "its host is to remove it: only GONE ends that"
_ENDED = "it is deleted: a guest that a host still has of it is a stray"
# Reports that change nothing, and why. Every pair of state and report is either here or in the table above.
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


def is_awaited(state: State, *, on_host: bool) -> bool:
    """Whether a service still has work for an instance: a request to carry out, or a failed guest to remove."""
    return state in TRANSITIONAL or (state in MAYBE_PLACED and on_host)


def states_that_allow(event: Event) -> tuple[State, ...]:
    """Every state in which ``event`` may happen, for a conditional UPDATE's WHERE."""
    return tuple(s for s in State if (s, event) in TRANSITIONS)
