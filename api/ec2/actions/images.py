"""DescribeImages."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from api.ec2.actions.context import Context, Parameters, Result
from api.ec2.actions.identifiers import image_ids
from api.ec2.actions.instance_shape import ROOT_DEVICE, architecture, hypervisor, tag_list
from api.ec2.actions.listing import fixed, page_of
from api.ec2.protocol.filters import ValuesOf, compile_filters
from api.ec2.protocol.timestamps import format_moment
from controller.operations.images.views import ImageView, list_images

_GIB = 1024**3
# The owners that clients name to get the public images.
_PUBLIC_OWNERS = frozenset({"amazon", "aws-marketplace", "all"})


def describe_images(context: Context, params: Parameters) -> Result:
    """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeImages.html

    The owner ``amazon`` stands for the public images, as ``ExecutableBy=all`` does; ``self`` for the project's own.
    """
    ids = image_ids(params.get("ImageIds", ()))
    images = context.cloud.read(lambda tx: list_images(tx, context.project_id, ids or None))
    for names in (params.get("Owners"), params.get("ExecutableUsers")):
        if names:
            images = [i for i in images if _belongs(i, names, context.project_id)]
    matches = compile_filters(params.get("Filters", ()), _FILTERS, lambda i: i.tags)
    items, token = page_of(context, params, (i for i in images if matches(i)), _order, ids="ImageIds")
    return {"Images": [_shape(i) for i in items], "NextToken": token}


def _order(image: ImageView) -> str:
    """Oldest first."""
    return f"{image.created_at.isoformat(timespec='microseconds')}/{image.id}"


def _belongs(image: ImageView, names: Iterable[str], project_id: str) -> bool:
    for name in names:
        if name in _PUBLIC_OWNERS and image.public:
            return True
        if image.project_id == (project_id if name == "self" else name):
            return True
    return False


def _shape(image: ImageView) -> dict[str, Any]:
    size_gib = max(1, -(-image.virtual_size_bytes // _GIB))
    return {
        "ImageId": image.id,
        "ImageLocation": f"{image.project_id}/{image.name}",
        "State": image.state.lower(),
        "OwnerId": image.project_id,
        "CreationDate": format_moment(image.created_at),
        "Public": image.public,
        "ProductCodes": [],
        "Architecture": architecture(image.architecture),
        "ImageType": "machine",
        "Name": image.name,
        "Description": image.description,
        "RootDeviceType": "ebs",
        "RootDeviceName": ROOT_DEVICE,
        "BlockDeviceMappings": [
            {"DeviceName": ROOT_DEVICE, "Ebs": {"VolumeSize": size_gib, "DeleteOnTermination": True}}
        ],
        "VirtualizationType": "hvm",
        "Tags": tag_list(image.tags),
        "Hypervisor": hypervisor(image.hypervisor),
        "PlatformDetails": "Linux/UNIX",
    }


_FILTERS: Mapping[str, ValuesOf[ImageView]] = MappingProxyType(
    {
        "architecture": lambda i: (architecture(i.architecture),),
        "creation-date": lambda i: (format_moment(i.created_at),),
        "description": lambda i: (i.description,),
        "hypervisor": lambda i: (hypervisor(i.hypervisor),),
        "image-id": lambda i: (i.id,),
        "image-type": fixed("machine"),
        "is-public": lambda i: ("true" if i.public else "false",),
        "manifest-location": lambda i: (f"{i.project_id}/{i.name}",),
        "name": lambda i: (i.name,),
        "owner-alias": lambda i: ("amazon",) if i.public else (),
        "owner-id": lambda i: (i.project_id,),
        "platform": fixed(),
        "product-code": fixed(),
        "root-device-name": fixed(ROOT_DEVICE),
        "root-device-type": fixed("ebs"),
        "state": lambda i: (i.state.lower(),),
        "virtualization-type": fixed("hvm"),
    }
)
