"""Explicit ids of a call: their form is checked before anything is looked up."""

from collections.abc import Iterable

from api.ec2.protocol.errors import MalformedSubnetId, MalformedVpcId
from controller.domain.errors import MalformedImageId, MalformedInstanceId
from controller.domain.ids import IMAGE, INSTANCE, NETWORK, is_id

_SUBNET, _VPC = "subnet", "vpc"


def instance_ids(ids: Iterable[str]) -> list[str]:
    """The ids, each once.

    Raises:
        MalformedInstanceId
    """
    unique = list(dict.fromkeys(ids))
    for value in unique:
        if not is_id(value, INSTANCE):
            raise MalformedInstanceId(kind="instance", id=value[:100], expected=f"{INSTANCE}-...")
    return unique


def image_ids(ids: Iterable[str]) -> list[str]:
    """The ids, each once.

    Raises:
        MalformedImageId
    """
    unique = list(dict.fromkeys(ids))
    for value in unique:
        if not is_id(value, IMAGE):
            raise MalformedImageId(kind="image", id=value[:100], expected=f"{IMAGE}-...")
    return unique


def subnet_id(network_id: str) -> str:
    """A network under the name of its kind in EC2: the digits are the same."""
    return f"{_SUBNET}-{network_id.removeprefix(f'{NETWORK}-')}"


def network_id(subnet: str) -> str:
    """The network of a subnet's id.

    Raises:
        MalformedSubnetId
    """
    if not is_id(subnet, _SUBNET):
        raise MalformedSubnetId(kind="subnet", id=subnet[:100], expected=f"{_SUBNET}-...")
    return f"{NETWORK}-{subnet.removeprefix(f'{_SUBNET}-')}"


def vpc_id(project_id: str) -> str:
    """The one VPC of a project; its id is made of the account number."""
    return f"{_VPC}-{project_id:0>17}"


def vpc_ids(ids: Iterable[str]) -> list[str]:
    """The ids, each once.

    Raises:
        MalformedVpcId
    """
    unique = list(dict.fromkeys(ids))
    for value in unique:
        if not is_id(value, _VPC):
            raise MalformedVpcId(kind="vpc", id=value[:100], expected=f"{_VPC}-...")
    return unique
