"""Handlers of actions, and the context that each call gives them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from api.ec2.protocol.errors import UnsupportedOperation
from controller.operations.accounts.users import Principal
from controller.operations.cloud import Cloud
from controller.operations.instances.launch_batches import LaunchBatcher

Parameters: TypeAlias = dict[str, Any]
Result: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Context:
    """One authenticated call."""

    cloud: Cloud
    principal: Principal
    action: str
    request_id: str
    launches: LaunchBatcher

    @property
    def project_id(self) -> str:
        """The project of the caller."""
        return self.principal.project_id


Handler: TypeAlias = Callable[[Context, Parameters], Result]


class UnsupportedParameter(UnsupportedOperation):
    """EC2 has the parameter, this cloud has not; without it the result would not be what was asked for."""

    code = "ec2.unsupported_parameter"
    message = "The parameter {parameter} is not supported by this cloud: {reason}."
