"""The life of an instance in EC2's words.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-lifecycle.html
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from api.ec2.reasons import INSTANCE_INITIATED, USER_INITIATED, ec2_reason
from controller.domain.states import TRAITS, State

EC2_STATE: Mapping[str, tuple[int, str]] = MappingProxyType({state: t.ec2 for state, t in TRAITS.items()})
RUNNING = EC2_STATE[State.ACTIVE]
_CHECK: Mapping[str, str] = MappingProxyType({state: t.ec2_check for state, t in TRAITS.items()})
_BY_USER = frozenset(state for state, t in TRAITS.items() if t.by_user)
# The one detail of both checks, reachability, by their status.
_REACHABILITY = MappingProxyType({"ok": "passed", "initializing": "initializing", "impaired": "failed"})


def ec2_state(name: str) -> tuple[int, str]:
    """EC2's code and word for a state; one that only a newer release knows is shown by its own name, as running."""
    return EC2_STATE.get(name) or (RUNNING[0], name.lower().replace("_", "-"))


def state(name: str) -> dict[str, Any]:
    """EC2's ``InstanceState`` of one of ours."""
    code, text = ec2_state(name)
    return {"Code": code, "Name": text}


def state_reason(name: str, code: str, reason: str) -> dict[str, str] | None:
    """EC2's ``StateReason``: why an instance is not running; None where there is no reason."""
    if reason or name == State.ERROR:
        ec2_code = ec2_reason(code)
        return {"Code": ec2_code, "Message": f"{ec2_code}: {reason or 'it failed'}"}
    if name in _BY_USER:
        return {"Code": USER_INITIATED, "Message": f"{USER_INITIATED}: User initiated shutdown"}
    return None


def transition_reason(name: str, code: str, reason: str, since: datetime) -> str:
    """EC2's ``StateTransitionReason``. Clients read in it since when an instance has been stopped by its user."""
    said = state_reason(name, code, reason)
    if said is None or said["Code"] == INSTANCE_INITIATED:
        return ""
    if said["Code"] == USER_INITIATED:
        return f"User initiated ({since.astimezone(UTC):%Y-%m-%d %H:%M:%S} GMT)"
    return said["Message"]


def status_checks(name: str) -> tuple[str, str]:
    """The status of both of EC2's checks, and of their one detail, reachability."""
    status = _CHECK.get(name, "not-applicable")
    return status, _REACHABILITY.get(status, "")
