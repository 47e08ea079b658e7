"""DescribeInstanceAttribute, and ModifyInstanceAttribute as far as it asks for what is so anyway."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from api.ec2 import queries
from api.ec2.actions.context import Context, Parameters, Result, UnsupportedParameter
from api.ec2.actions.identifiers import instance_ids, require_all
from api.ec2.actions.instance_shape import ROOT_DEVICE
from api.ec2.queries import Described
from controller.domain.errors import InvalidParameter
from controller.operations.cloud import Transaction

_NO = {"Value": False}
_SHUTDOWN = {"Value": "stop"}
# As the parameter names it: the member of the answer, and its value where it is the same for all instances.
_ATTRIBUTES: Mapping[str, tuple[str, Any]] = MappingProxyType(
    {
        "blockDeviceMapping": ("BlockDeviceMappings", []),
        "disableApiStop": ("DisableApiStop", _NO),
        "disableApiTermination": ("DisableApiTermination", _NO),
        "ebsOptimized": ("EbsOptimized", _NO),
        "enaSupport": ("EnaSupport", _NO),
        "groupSet": ("Groups", []),
        "instanceInitiatedShutdownBehavior": ("InstanceInitiatedShutdownBehavior", _SHUTDOWN),
        "instanceType": ("InstanceType", None),
        "kernel": ("KernelId", {}),
        "productCodes": ("ProductCodes", []),
        "ramdisk": ("RamdiskId", {}),
        "rootDeviceName": ("RootDeviceName", {"Value": ROOT_DEVICE}),
        "userData": ("UserData", None),
    }
)
_UNCHANGED: Mapping[str, Any] = MappingProxyType(
    {
        "DisableApiStop": _NO,
        "DisableApiTermination": _NO,
        "EbsOptimized": _NO,
        "InstanceInitiatedShutdownBehavior": _SHUTDOWN,
    }
)


def describe_instance_attribute(context: Context, params: Parameters) -> Result:
    """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstanceAttribute.html"""
    name = params["Attribute"]
    if name not in _ATTRIBUTES:
        reason = f"it has to be one of {', '.join(_ATTRIBUTES)}"
        raise InvalidParameter(parameter="Attribute", value=name[:100], reason=reason)
    item, user_data = context.cloud.read(lambda tx: _look_up(tx, context.project_id, params["InstanceId"]))
    own = {"instanceType": {"Value": item.row.instance_type}, "userData": {"Value": user_data} if user_data else {}}
    member, same = _ATTRIBUTES[name]
    return {"InstanceId": item.row.id, member: own.get(name, same)}


def modify_instance_attribute(context: Context, params: Parameters) -> Result:
    """Terraform takes protection off before it terminates; there is none.

    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifyInstanceAttribute.html
    """
    for name, value in params.items():
        if name not in ("InstanceId", "DryRun") and _UNCHANGED.get(name) != value:
            raise UnsupportedParameter(parameter=name, reason="it cannot be changed to this here")
    context.cloud.read(lambda tx: _look_up(tx, context.project_id, params["InstanceId"]))
    return {}


def _look_up(tx: Transaction, project_id: str, instance_id: str) -> tuple[Described, str]:
    ids = instance_ids([instance_id])
    found = queries.instances(tx, project_id, ids=ids)
    require_all(ids, (i.row.id for i in found))
    return found[0], queries.user_data(tx, found[0].row.reservation_id)
