"""StartInstances, StopInstances, RebootInstances, TerminateInstances."""

from collections.abc import Sequence
from typing import Any, Protocol

from api.ec2.actions.context import Context, Parameters, Result, UnsupportedParameter
from api.ec2.actions.identifiers import instance_ids
from api.ec2.states import state
from controller.domain.states import State
from controller.operations.cloud import Transaction
from controller.operations.instances import actions
from controller.operations.instances.locking import LockedInstance


class _Action(Protocol):
    def __call__(
        self, tx: Transaction, project_id: str, ids: Sequence[str], *, by: str
    ) -> list[tuple[LockedInstance, State]]: ...


def start_instances(context: Context, params: Parameters) -> Result:
    """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_StartInstances.html"""
    return {"StartingInstances": _changes(context, params, actions.start)}


def stop_instances(context: Context, params: Parameters) -> Result:
    """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_StopInstances.html"""
    if params.get("Hibernate"):
        raise UnsupportedParameter(parameter="Hibernate", reason="instances cannot hibernate; stop them without it")
    return {"StoppingInstances": _changes(context, params, actions.stop)}


def reboot_instances(context: Context, params: Parameters) -> Result:
    """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RebootInstances.html"""
    _changes(context, params, actions.reboot)
    return {}


def terminate_instances(context: Context, params: Parameters) -> Result:
    """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_TerminateInstances.html"""
    return {"TerminatingInstances": _changes(context, params, actions.terminate)}


def _changes(context: Context, params: Parameters, action: _Action) -> list[dict[str, Any]]:
    ids = instance_ids(params["InstanceIds"])
    by = context.principal.user_name
    changed = context.cloud.write(lambda tx: action(tx, context.project_id, ids, by=by))
    return [
        {"InstanceId": instance.id, "CurrentState": state(instance.state), "PreviousState": state(before)}
        for instance, before in changed
    ]
