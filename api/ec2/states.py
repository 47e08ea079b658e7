"""The life of an instance in EC2's words.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-lifecycle.html
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from controller.domain.states import State

PENDING, RUNNING = (0, "pending"), (16, "running")
SHUTTING_DOWN, TERMINATED = (32, "shutting-down"), (48, "terminated")
STOPPING, STOPPED = (64, "stopping"), (80, "stopped")

# UNKNOWN is running: lost contact never stops a guest; its status check says that it is impaired.
EC2_STATE: Mapping[str, tuple[int, str]] = MappingProxyType(
    {
        State.REQUESTED: PENDING,
        State.BUILDING: PENDING,
        State.STARTING: PENDING,
        State.ACTIVE: RUNNING,
        State.REBOOTING: RUNNING,
        State.UNKNOWN: RUNNING,
        State.STOPPING: STOPPING,
        State.STOPPED: STOPPED,
        State.DELETING: SHUTTING_DOWN,
        State.DELETED: TERMINATED,
        State.ERROR: TERMINATED,
    }
)
_FAILED = "Server.InternalError"
_USER_INITIATED = "Client.UserInitiatedShutdown"
_INSTANCE_INITIATED = "Client.InstanceInitiatedShutdown"
# With no other reason they are so because a user wants it.
_BY_A_USER = frozenset({State.STOPPING, State.STOPPED, State.DELETING, State.DELETED})


def ec2_state(name: str) -> tuple[int, str]:
    """EC2's code and word for a state; one that only a newer release knows is shown as it is."""
    return EC2_STATE.get(name) or (RUNNING[0], name.lower().replace("_", "-"))


def state(name: str) -> dict[str, Any]:
    """EC2's ``InstanceState`` of one of ours."""
    code, text = ec2_state(name)
    return {"Code": code, "Name": text}


def state_reason(name: str, code: str, reason: str) -> dict[str, str] | None:
    """EC2's ``StateReason``: why an instance is not running; None while nothing is to be said."""
    if reason or name == State.ERROR:
        code = code or _FAILED
        return {"Code": code, "Message": f"{code}: {reason or 'it failed'}"}
    if name in _BY_A_USER:
        return {"Code": _USER_INITIATED, "Message": f"{_USER_INITIATED}: User initiated shutdown"}
    return None


def transition_reason(name: str, code: str, reason: str, since: datetime) -> str:
    """EC2's ``StateTransitionReason``. Clients read in it since when an instance has been stopped by its user."""
    said = state_reason(name, code, reason)
    if said is None or said["Code"] == _INSTANCE_INITIATED:
        return ""
    if said["Code"] == _USER_INITIATED:
        return f"User initiated ({since.astimezone(UTC):%Y-%m-%d %H:%M:%S} GMT)"
    return said["Message"]


def status_checks(name: str) -> tuple[str, str]:
    """The status of both of EC2's checks, and of their one detail, reachability."""
    return _STATUS.get(name, ("not-applicable", ""))


_STATUS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        State.ACTIVE: ("ok", "passed"),
        State.REBOOTING: ("initializing", "initializing"),
        State.UNKNOWN: ("impaired", "failed"),
    }
)
