"""DescribeAccountAttributes, and DescribeAddresses, which a client asks for with every list of instances."""

from typing import Any

from api.ec2.actions.context import Context, Parameters, Result
from api.ec2.protocol.filters import ValuesOf, compile_filters
from controller.domain.errors import InvalidParameter, NotFound
from controller.operations.accounts.projects import get_project

_NO_ADDRESS_FILTERS: dict[str, ValuesOf[Any]] = {
    name: lambda _: ()
    for name in (
        "allocation-id", "association-id", "domain", "instance-id", "network-border-group", "network-interface-id",
        "network-interface-owner-id", "private-ip-address", "public-ip",
    )
}  # fmt: skip


def describe_account_attributes(context: Context, params: Parameters) -> Result:
    """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeAccountAttributes.html

    The platform is EC2's classic one: an instance is in its project's network without naming a VPC.
    """
    project = context.cloud.read(lambda tx: get_project(tx, context.project_id))
    attributes = {
        "supported-platforms": "EC2",
        "default-vpc": "none",
        "max-instances": str(project.quota_instances),
        "vpc-max-security-groups-per-interface": "0",
        "max-elastic-ips": "0",
        "vpc-max-elastic-ips": "0",
    }
    names = params.get("AttributeNames") or list(attributes)
    for name in names:
        if name not in attributes:
            reason = f"it has to be one of {', '.join(attributes)}"
            raise InvalidParameter(parameter="AttributeName", value=name[:100], reason=reason)
    return {
        "AccountAttributes": [
            {"AttributeName": n, "AttributeValues": [{"AttributeValue": attributes[n]}]} for n in names
        ]
    }


def describe_addresses(_: Context, params: Parameters) -> Result:
    """There are no elastic addresses; libcloud asks for them with every list of its nodes.

    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeAddresses.html
    """
    for name in (*params.get("PublicIps", ()), *params.get("AllocationIds", ())):
        raise NotFound(kind="address", id=name[:100])
    compile_filters(params.get("Filters", ()), _NO_ADDRESS_FILTERS, lambda _: {})
    return {"Addresses": []}
