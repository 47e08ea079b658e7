"""RunInstances."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from api.ec2.actions.context import Context, Parameters, Result, UnsupportedParameter
from api.ec2.actions.identifiers import image_ids, network_id, subnet_id
from api.ec2.actions.instance_xml import reservations
from api.ec2.actions.tag_specifications import read_tag_specifications
from api.ec2.protocol.errors import SubnetNotFound
from controller.domain.errors import (
    InvalidCombination,
    MissingParameter,
    NetworkNotFound,
)
from controller.operations.instances.launch import just_launched
from controller.operations.instances.launch_requests import LaunchRequest
from controller.operations.instances.views import instances_of

DEFAULT_TYPE = "m1.small"
HEEDED = frozenset({
    "ClientToken", "DryRun", "ImageId", "InstanceInitiatedShutdownBehavior", "InstanceType", "KeyName", "MaxCount",
    "MinCount", "NetworkInterfaces", "Placement", "PrivateIpAddress", "SubnetId", "TagSpecifications", "UserData",
})  # fmt: skip


def run_instances(context: Context, params: Parameters) -> Result:
    """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_RunInstances.html"""
    request = _request(context, params)

    try:
        launched = context.launches(request)
    except NetworkNotFound as error:
        raise SubnetNotFound(id=subnet_id(request.network_id)) from error
    reservation_id = launched.reservation.id
    if launched.repeated:
        items = context.cloud.read(lambda tx: instances_of(tx, context.project_id, reservation_id))
    else:
        items = just_launched(launched, request)
    answer = reservations(items, context.cloud.settings)
    # All of them may have been purged since the first time that this client token was used.
    return answer[0] if answer else {"ReservationId": reservation_id, "OwnerId": context.project_id, "Instances": []}


def _request(context: Context, params: Parameters) -> LaunchRequest:
    refuse_what_has_no_effect(params)
    if "ImageId" not in params:
        raise MissingParameter(parameter="ImageId")
    (image_id,) = image_ids([params["ImageId"]])
    tags = read_tag_specifications(params.get("TagSpecifications", ()), "instance", "reservation")
    interface, placement = read_interface(params), params.get("Placement", {})
    return LaunchRequest(
        project_id=context.project_id,
        user_id=context.principal.user_id,
        image_id=image_id,
        instance_type=params.get("InstanceType", DEFAULT_TYPE),
        min_count=params["MinCount"],
        max_count=params["MaxCount"],
        key_name=params.get("KeyName", ""),
        user_data="".join(params.get("UserData", "").split()),  # clients wrap base64
        client_token=params.get("ClientToken", ""),
        zone=placement.get("AvailabilityZone", ""),
        tags=tuple(sorted(tags.get("instance", {}).items())),
        reservation_tags=tuple(sorted(tags.get("reservation", {}).items())),
        network_id=network_id(interface["SubnetId"]) if interface.get("SubnetId") else "",
        address=interface.get("PrivateIpAddress", ""),
        group_name=placement.get("GroupName", ""),
        shutdown_behavior=_shutdown_behavior(params),
    )


def _shutdown_behavior(params: Parameters) -> str:
    """Empty for EC2's default: a token that was first sent without it is the same request with it."""
    name: str = params.get("InstanceInitiatedShutdownBehavior", "")
    return "" if name == "stop" else name


def read_interface(params: Parameters) -> Mapping[str, str]:
    """``SubnetId`` and ``PrivateIpAddress`` of the one interface: given for the instance, or for its interface.

    Raises:
        InvalidCombination: both. UnsupportedParameter: more than one interface, or one that cannot be.
    """
    interfaces: Sequence[Mapping[str, Any]] = params.get("NetworkInterfaces", ())
    if not interfaces:
        return {name: params[name] for name in ("SubnetId", "PrivateIpAddress") if name in params}
    for name in ("SubnetId", "PrivateIpAddress", "SecurityGroups", "SecurityGroupIds"):
        if params.get(name):
            reason = f"Network interfaces and an instance-level {name} may not be specified on the same request"
            raise InvalidCombination(reason=reason)
    if len(interfaces) > 1:
        reason = "an instance has one network interface here"
        raise UnsupportedParameter(parameter="NetworkInterface.2", reason=reason)
    for name, value in interfaces[0].items():
        if name not in ("SubnetId", "PrivateIpAddress") and not _INTERFACE.get(name, _only())(value):
            reason = "of an interface a subnet and an address can be asked for, and DeviceIndex=0"
            raise UnsupportedParameter(parameter=f"NetworkInterface.1.{name}", reason=reason)
    listed: Sequence[Mapping[str, Any]] = interfaces[0].get("PrivateIpAddresses", ())
    if listed and interfaces[0].get("PrivateIpAddress"):
        raise InvalidCombination(reason="PrivateIpAddress and PrivateIpAddresses may not be specified together")
    return {**(listed[0] if listed else {}), **interfaces[0]}


# --- what clients send and has no effect here: accepted where that is what they ask for, else refused by name ---


def _only(*values: Any) -> Callable[[Any], bool]:
    return lambda value: value in values


def _members(**allowed: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: all(name in allowed and allowed[name](item) for name, item in value.items())


def _anything(_: Any) -> bool:
    return True


_only_default: Callable[[Any], bool] = lambda names: set(names) <= {"default"}  # noqa: E731
HARMLESS: Mapping[str, Callable[[Any], bool]] = MappingProxyType(
    {
        "CapacityReservationSpecification": _members(CapacityReservationPreference=_only("open", "none")),
        "CreditSpecification": _anything,  # no guest is ever throttled
        "DisableApiStop": _only(False),
        "DisableApiTermination": _only(False),
        "EbsOptimized": _only(False),
        "EnablePrimaryIpv6": _only(False),
        "EnclaveOptions": _members(Enabled=_only(False)),
        "HibernationOptions": _members(Configured=_only(False)),
        "Ipv6AddressCount": _only(0),
        "MaintenanceOptions": _anything,
        "MetadataOptions": _members(
            HttpTokens=_only("optional"),
            HttpEndpoint=_only("enabled"),
            HttpPutResponseHopLimit=_anything,
            HttpProtocolIpv6=_only("disabled"),
            InstanceMetadataTags=_only("disabled"),
        ),
        "Monitoring": _anything,
        "PrivateDnsNameOptions": _members(
            HostnameType=_only("ip-name"),
            EnableResourceNameDnsARecord=_only(False),
            EnableResourceNameDnsAAAARecord=_only(False),
        ),
        "SecurityGroups": _only_default,
        "SecurityGroupIds": _only_default,
    }
)
_PLACEMENT = _members(AvailabilityZone=_anything, GroupName=_anything, Tenancy=_only("default"))
# The same for the one interface that an instance has.
_INTERFACE: Mapping[str, Callable[[Any], bool]] = MappingProxyType(
    {
        "AssociatePublicIpAddress": _only(False),
        "DeleteOnTermination": _only(True),
        "Description": _anything,
        "DeviceIndex": _only(0),
        "Groups": _only_default,
        "InterfaceType": _only("interface"),
        "Ipv6AddressCount": _only(0),
        "Ipv6Addresses": _only([]),
        "NetworkCardIndex": _only(0),
        "PrivateIpAddresses": lambda items: len(items) == 1 and items[0].get("Primary", True),
        "SecondaryPrivateIpAddressCount": _only(0),
    }
)
# Where the name on the wire is another.
_WIRE_NAMES = {
    "BlockDeviceMappings": "BlockDeviceMapping",
    "NetworkInterfaces": "NetworkInterface",
    "SecurityGroupIds": "SecurityGroupId",
    "SecurityGroups": "SecurityGroup",
}


def refuse_what_has_no_effect(params: Parameters) -> None:
    """Raises: UnsupportedParameter: the instance would not be what was asked for."""
    for name, value in params.items():
        if name not in HEEDED and not HARMLESS.get(name, _only())(value):
            shown = f" ({value})" if isinstance(value, (str, bool, int)) else ""
            reason = f"it cannot be given{shown[:100]} for an instance here; leave it out"
            raise UnsupportedParameter(parameter=_WIRE_NAMES.get(name, name), reason=reason)
    for name, value in params.get("Placement", {}).items():
        if not _PLACEMENT({name: value}):
            reason = "of a placement only AvailabilityZone and GroupName, and Tenancy=default, can be asked for"
            raise UnsupportedParameter(parameter=f"Placement.{name}", reason=reason)
