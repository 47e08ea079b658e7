"""An instance as EC2 describes it, and the filters over that description."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from api.ec2.actions.identifiers import subnet_id, vpc_id
from api.ec2.actions.listing import fixed
from api.ec2.protocol.filters import ValuesOf
from api.ec2.protocol.timestamps import format_moment
from api.ec2.states import ec2_state, state, state_reason, transition_reason
from controller.conf.settings import Settings
from controller.domain.names import lease_hostname
from controller.operations.instances.views import InstanceView

ROOT_DEVICE = "/dev/vda"
_ARCHITECTURES = {"aarch64": "arm64"}
_DISABLED = {"State": "disabled"}


def tag_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags as EC2 lists them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def architecture(name: str) -> str:
    """EC2's name of an architecture."""
    return _ARCHITECTURES.get(name, name)


def hypervisor(name: str | None) -> str:
    """EC2 has xen and ovm, but clients accept any word: kvm, with or without acceleration, is called so."""
    return "xen" if name == "xen" else "kvm"


def private_dns_name(item: InstanceView, settings: Settings) -> str:
    """The name under which an instance finds another in its network."""
    return f"{lease_hostname(item.dns_name, item.ip)}.{settings.network.dns_domain}" if item.ip else ""


def zone_of(item: InstanceView, settings: Settings) -> str:
    """The zone that the instance is in, or else the one that was asked for."""
    return item.host_zone or item.zone or settings.api.zone


def state_transition_reason(item: InstanceView, _settings: Settings) -> str:
    """Why it is no longer running; where its user stopped it, since when."""
    return transition_reason(item.state, item.reason_code, item.reason, item.state_since)


def instance(item: InstanceView, settings: Settings) -> dict[str, Any]:
    """EC2's ``Instance``."""
    return {
        "InstanceId": item.id,
        "ImageId": item.image_id,
        "State": state(item.state),
        "PrivateDnsName": private_dns_name(item, settings),
        "PublicDnsName": "",
        "StateTransitionReason": state_transition_reason(item, settings),
        "KeyName": item.key_name or None,
        "AmiLaunchIndex": item.launch_index,
        "ProductCodes": [],
        "InstanceType": item.instance_type,
        "LaunchTime": item.created_at,
        "Placement": {
            "AvailabilityZone": zone_of(item, settings),
            "GroupName": item.group_name or "",
            "Tenancy": "default",
        },
        "Monitoring": _DISABLED,
        "PrivateIpAddress": item.ip or None,
        "SubnetId": subnet_id(item.network_id),
        "VpcId": vpc_id(item.project_id),
        "Architecture": architecture(item.architecture),
        "RootDeviceType": "ebs",
        "RootDeviceName": ROOT_DEVICE,
        "BlockDeviceMappings": [],
        "VirtualizationType": "hvm",
        "ClientToken": item.client_token or "",
        "Tags": tag_list(item.tags),
        "SecurityGroups": [],
        "NetworkInterfaces": [],
        "Hypervisor": hypervisor(item.hypervisor),
        "EbsOptimized": False,
        "CpuOptions": {"CoreCount": item.vcpus, "ThreadsPerCore": 1},
        "StateReason": state_reason(item.state, item.reason_code, item.reason),
    }


def instance_filters(settings: Settings) -> dict[str, ValuesOf[InstanceView]]:
    """The filters of DescribeInstances that look at the instance itself."""
    return {
        **_ROW_FILTERS,
        "availability-zone": lambda i: (zone_of(i, settings),),
        "reason": lambda i: _given(state_transition_reason(i, settings)),
        "private-dns-name": lambda i: _given(private_dns_name(i, settings)),
    }


def _given(value: str | None) -> Iterable[str]:
    return (value,) if value else ()


def _state_reason(item: InstanceView) -> dict[str, str]:
    return state_reason(item.state, item.reason_code, item.reason) or {"Code": "", "Message": ""}


_ROW_FILTERS: Mapping[str, ValuesOf[InstanceView]] = MappingProxyType(
    {
        "architecture": lambda i: (architecture(i.architecture),),
        "client-token": lambda i: _given(i.client_token),
        "dns-name": fixed(),
        "hypervisor": lambda i: (hypervisor(i.hypervisor),),
        "image-id": lambda i: (i.image_id,),
        "instance-id": lambda i: (i.id,),
        "instance-lifecycle": fixed(),
        "instance-state-code": lambda i: (str(ec2_state(i.state)[0]),),
        "instance-state-name": lambda i: (ec2_state(i.state)[1],),
        "instance-type": lambda i: (i.instance_type,),
        "ip-address": fixed(),
        "key-name": lambda i: _given(i.key_name),
        "launch-index": lambda i: (str(i.launch_index),),
        "launch-time": lambda i: (format_moment(i.created_at),),
        "monitoring-state": fixed("disabled"),
        "owner-id": lambda i: (i.project_id,),
        "placement-group-name": lambda i: _given(i.group_name),
        "private-ip-address": lambda i: _given(i.ip),
        "network-interface.addresses.private-ip-address": lambda i: _given(i.ip),
        "reservation-id": lambda i: (i.reservation_id,),
        "root-device-name": fixed(ROOT_DEVICE),
        "root-device-type": fixed("ebs"),
        "state-reason-code": lambda i: _given(_state_reason(i)["Code"]),
        "state-reason-message": lambda i: _given(_state_reason(i)["Message"]),
        "subnet-id": lambda i: (subnet_id(i.network_id),),
        "tenancy": fixed("default"),
        "virtualization-type": fixed("hvm"),
        "vpc-id": lambda i: (vpc_id(i.project_id),),
    }
)
