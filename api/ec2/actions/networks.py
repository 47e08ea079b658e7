"""DescribeSubnets and DescribeVpcs: the networks that a project may use, as EC2 would show them.

A subnet is a network, in every zone; its tag Name is the network's name. A project has one VPC, its default one, which
holds them all: its blocks are the range that networks are cut out of, and those of networks that lie elsewhere.
"""

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network
from types import MappingProxyType
from typing import Any

from api.ec2.actions.context import Context, Parameters, Result
from api.ec2.actions.identifiers import network_id, subnet_id, vpc_id, vpc_ids
from api.ec2.actions.listing import fixed, page_of
from api.ec2.protocol.errors import SubnetNotFound, VpcNotFound
from api.ec2.protocol.filters import ValuesOf, compile_filters
from controller.operations.networks.views import NetworkView, list_usable_networks, list_usable_ranges

_AVAILABLE = "available"
_DHCP_OPTIONS = "default"


def describe_subnets(context: Context, params: Parameters) -> Result:
    """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeSubnets.html"""
    asked = {network_id(i): i for i in params.get("SubnetIds", ())}
    networks = context.cloud.read(lambda tx: list_usable_networks(tx, context.project_id))
    missing = asked.keys() - {n.id for n in networks}
    if missing:
        raise SubnetNotFound(id=", ".join(sorted(asked[m] for m in missing)[:20]))
    zone = context.cloud.settings.api.zone
    shown = [_subnet(n, context.project_id, zone) for n in networks if not asked or n.id in asked]
    matches = compile_filters(params.get("Filters", ()), _SUBNET_FILTERS, _tags)
    items, token = page_of(
        context, params, [s for s in shown if matches(s)], lambda s: str(s["SubnetId"]), ids="SubnetIds"
    )
    return {"Subnets": items, "NextToken": token}


def describe_vpcs(context: Context, params: Parameters) -> Result:
    """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeVpcs.html"""
    asked = vpc_ids(params.get("VpcIds", ()))
    mine = vpc_id(context.project_id)
    others = [i for i in asked if i != mine]
    if others:
        raise VpcNotFound(id=", ".join(others[:20]))
    ranges = context.cloud.read(lambda tx: list_usable_ranges(tx, context.project_id))
    shown = _vpc(mine, context.project_id, _blocks(context.cloud.settings.network.project_cidr_pool, ranges))
    matches = compile_filters(params.get("Filters", ()), _VPC_FILTERS, _tags)
    items, token = page_of(context, params, [v for v in [shown] if matches(v)], lambda v: str(v["VpcId"]), ids="VpcIds")
    return {"Vpcs": items, "NextToken": token}


def _subnet(network: NetworkView, project_id: str, zone: str) -> dict[str, Any]:
    return {
        "SubnetId": subnet_id(network.id),
        "VpcId": vpc_id(project_id),
        "State": _AVAILABLE,
        "CidrBlock": network.cidr,
        "AvailableIpAddressCount": network.free_addresses,
        "AvailabilityZone": zone,
        "AvailabilityZoneId": zone,
        "DefaultForAz": network.is_default,
        "MapPublicIpOnLaunch": False,
        "AssignIpv6AddressOnCreation": False,
        "Ipv6CidrBlockAssociationSet": [],
        "Ipv6Native": False,
        "OwnerId": project_id,
        "Tags": [{"Key": "Name", "Value": network.name}],
    }


def _vpc(vpc: str, project_id: str, blocks: Sequence[str]) -> dict[str, Any]:
    return {
        "VpcId": vpc,
        "State": _AVAILABLE,
        "CidrBlock": blocks[0],
        "CidrBlockAssociationSet": [
            {
                "AssociationId": f"vpc-cidr-assoc-{int(IPv4Network(block).network_address):017x}",
                "CidrBlock": block,
                "CidrBlockState": {"State": "associated"},
            }
            for block in blocks
        ],
        "Ipv6CidrBlockAssociationSet": [],
        "DhcpOptionsId": _DHCP_OPTIONS,
        "InstanceTenancy": "default",
        "IsDefault": True,
        "OwnerId": project_id,
        "Tags": [],
    }


def _blocks(pool: str, ranges: Sequence[str]) -> list[str]:
    """The VPC's ranges: every subnet lies in one of them."""
    first = IPv4Network(pool, strict=False)
    return [str(first), *(cidr for cidr in ranges if not IPv4Network(cidr).subnet_of(first))]


def _tags(item: Mapping[str, Any]) -> Mapping[str, str]:
    return {t["Key"]: t["Value"] for t in item["Tags"]}


def _of(name: str) -> ValuesOf[dict[str, Any]]:
    return lambda item: (_text(item[name]),)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


_SUBNET_FILTERS: Mapping[str, ValuesOf[dict[str, Any]]] = MappingProxyType(
    {
        **dict.fromkeys(("availability-zone", "availabilityZone"), _of("AvailabilityZone")),
        **dict.fromkeys(("availability-zone-id", "availabilityZoneId"), _of("AvailabilityZoneId")),
        "available-ip-address-count": _of("AvailableIpAddressCount"),
        **dict.fromkeys(("cidr", "cidr-block", "cidrBlock"), _of("CidrBlock")),
        **dict.fromkeys(("default-for-az", "defaultForAz"), _of("DefaultForAz")),
        "ipv6-cidr-block-association.ipv6-cidr-block": fixed(),
        "ipv6-native": _of("Ipv6Native"),
        "map-public-ip-on-launch": _of("MapPublicIpOnLaunch"),
        "owner-id": _of("OwnerId"),
        "state": _of("State"),
        "subnet-id": _of("SubnetId"),
        "vpc-id": _of("VpcId"),
    }
)
_VPC_FILTERS: Mapping[str, ValuesOf[dict[str, Any]]] = MappingProxyType(
    {
        "cidr": _of("CidrBlock"),
        "cidr-block-association.association-id": lambda v: [a["AssociationId"] for a in v["CidrBlockAssociationSet"]],
        "cidr-block-association.cidr-block": lambda v: [a["CidrBlock"] for a in v["CidrBlockAssociationSet"]],
        "cidr-block-association.state": fixed("associated"),
        **dict.fromkeys(("dhcp-options-id", "dhcpOptionsId"), _of("DhcpOptionsId")),
        "ipv6-cidr-block-association.ipv6-cidr-block": fixed(),
        **dict.fromkeys(("is-default", "isDefault"), _of("IsDefault")),
        "owner-id": _of("OwnerId"),
        "state": _of("State"),
        "vpc-id": _of("VpcId"),
    }
)
