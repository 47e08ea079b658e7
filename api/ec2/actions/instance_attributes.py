"""DescribeInstanceAttribute and ModifyInstanceAttribute.

The shutdown behavior can be changed; any other attribute may be given with the value that it has.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from api.ec2.actions.context import Context, Parameters, Result, UnsupportedParameter
from api.ec2.actions.identifiers import instance_ids
from api.ec2.actions.instance_shape import ROOT_DEVICE
from controller.domain.errors import InvalidCombination, InvalidParameter
from controller.operations.cloud import Transaction
from controller.operations.instances.actions import set_shutdown_behavior
from controller.operations.instances.views import InstanceView, get_instance, user_data

_NO = {"Value": False}
_SHUTDOWN = "InstanceInitiatedShutdownBehavior"
# As the parameter names it: the member of the answer, and its value where it is the same for all instances.
_ATTRIBUTES: Mapping[str, tuple[str, Any]] = MappingProxyType(
    {
        "blockDeviceMapping": ("BlockDeviceMappings", []),
        "disableApiStop": ("DisableApiStop", _NO),
        "disableApiTermination": ("DisableApiTermination", _NO),
        "ebsOptimized": ("EbsOptimized", _NO),
        "enaSupport": ("EnaSupport", _NO),
        "groupSet": ("Groups", []),
        "instanceInitiatedShutdownBehavior": (_SHUTDOWN, None),
        "instanceType": ("InstanceType", None),
        "kernel": ("KernelId", {}),
        "productCodes": ("ProductCodes", []),
        "ramdisk": ("RamdiskId", {}),
        "rootDeviceName": ("RootDeviceName", {"Value": ROOT_DEVICE}),
        "userData": ("UserData", None),
    }
)
# What is no attribute.
_OF_THE_REQUEST = frozenset({"InstanceId", "DryRun", "Attribute", "Value"})
_UNCHANGED: Mapping[str, Any] = MappingProxyType(
    {
        "DisableApiStop": _NO,
        "DisableApiTermination": _NO,
        "EbsOptimized": _NO,
    }
)


def describe_instance_attribute(context: Context, params: Parameters) -> Result:
    """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstanceAttribute.html"""
    name = _known(params["Attribute"])
    item, own = context.cloud.read(lambda tx: _look_up(tx, context.project_id, params["InstanceId"]))
    member, same = _ATTRIBUTES[name]
    return {"InstanceId": item.id, member: own.get(name, same)}


def modify_instance_attribute(context: Context, params: Parameters) -> Result:
    """Terraform switches termination protection off before it terminates; there is none here.

    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifyInstanceAttribute.html
    """
    wanted = _wanted(params)
    for member, value in wanted.items():
        if member != _SHUTDOWN and _UNCHANGED.get(member) != value:
            raise UnsupportedParameter(parameter=member, reason="it cannot be changed to this here")
    item, _ = context.cloud.read(lambda tx: _look_up(tx, context.project_id, params["InstanceId"]))
    if _SHUTDOWN in wanted:
        behavior = wanted[_SHUTDOWN].get("Value", "")
        context.cloud.write(lambda tx: set_shutdown_behavior(tx, context.project_id, item.id, behavior))
    return {}


def _wanted(params: Parameters) -> Mapping[str, Any]:
    """What is to be changed, by member; ``Attribute`` and ``Value`` are another way to name one."""
    wanted = {name: value for name, value in params.items() if name not in _OF_THE_REQUEST}
    if "Attribute" in params:
        member, same = _ATTRIBUTES[_known(params["Attribute"])]
        value = params.get("Value", "")
        wanted[member] = {"Value": value.lower() == "true" if same == _NO else value}
    if not wanted:
        raise InvalidCombination(reason="No attribute to be changed was given")
    return wanted


def _known(attribute: str) -> str:
    if attribute not in _ATTRIBUTES:
        reason = f"it has to be one of {', '.join(_ATTRIBUTES)}"
        raise InvalidParameter(parameter="Attribute", value=attribute[:100], reason=reason)
    return attribute


def _look_up(tx: Transaction, project_id: str, instance_id: str) -> tuple[InstanceView, Mapping[str, Any]]:
    """The instance, and the attributes that are its own."""
    (checked,) = instance_ids([instance_id])
    item = get_instance(tx, project_id, checked)
    data = user_data(tx, item.reservation_id)
    return item, {
        "instanceInitiatedShutdownBehavior": {"Value": item.shutdown_behavior},
        "instanceType": {"Value": item.instance_type},
        "userData": {"Value": data} if data else {},
    }
