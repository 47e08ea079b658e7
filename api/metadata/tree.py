"""The metadata of an instance as a tree of names, and how a path finds its way in it.

Categories: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-metadata.html
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC

from controller.operations.instances.metadata import GuestMetadata

# A folder is a mapping, a leaf is its contents.
Node = bytes | Mapping[str, "Node"]

LATEST = "latest"
# What `/` lists; any other dated version is the same.
_VERSIONS = ("1.0", "2007-01-19", "2009-04-04", "2016-09-02", "2018-09-24", "2021-03-23", LATEST)
_VERSION = re.compile(r"1\.0|\d{4}-\d{2}-\d{2}|latest")
_PUBLIC_KEYS = "public-keys"


def answer(guest: GuestMetadata, path: str) -> bytes | None:
    """The contents of a leaf or the listing of a folder; None where there is nothing.

    A folder answers with and without a slash at its end.
    """
    version, *rest = [part for part in path.split("/") if part] or [""]
    if not version:
        return "\n".join(_VERSIONS).encode()
    if not _VERSION.fullmatch(version):
        return None
    node = _walk(_root(guest), rest)
    if node is None or isinstance(node, bytes):
        return node
    return _listing(guest, node, rest)


def _walk(root: Node, parts: Sequence[str]) -> Node | None:
    node = root
    for part in parts:
        if isinstance(node, bytes) or part not in node:
            return None
        node = node[part]
    return node


def _listing(guest: GuestMetadata, folder: Mapping[str, Node], parts: Sequence[str]) -> bytes:
    if parts and parts[-1] == _PUBLIC_KEYS:
        return f"0={guest.instance.key_name or 'key'}".encode()
    # The top of a version is listed without slashes, as EC2 does.
    slash = "/" if parts else ""
    return "\n".join(sorted(f"{n}{slash}" if isinstance(c, Mapping) else n for n, c in folder.items())).encode()


def _root(guest: GuestMetadata) -> Node:
    return {
        "dynamic": {"instance-identity": {"document": _identity(guest)}},
        "meta-data": _meta_data(guest),
        **({"user-data": guest.user_data} if guest.user_data else {}),
    }


def _meta_data(guest: GuestMetadata) -> Node:
    name = guest.hostname.encode()
    groups = b"default"
    return {
        "ami-id": guest.instance.image_id.encode(),
        "ami-launch-index": str(guest.instance.launch_index).encode(),
        "ami-manifest-path": b"(unknown)",
        "block-device-mapping": {"ami": b"vda", "root": b"/dev/vda"},
        "hostname": name,
        "instance-action": b"none",
        "instance-id": guest.instance.id.encode(),
        "instance-life-cycle": b"on-demand",
        "instance-type": guest.instance.instance_type.encode(),
        "local-hostname": name,
        "local-ipv4": guest.instance.ip.encode(),
        "mac": guest.instance.mac.encode(),
        "network": {"interfaces": {"macs": {guest.instance.mac: _interface(guest, groups)}}},
        "placement": {"availability-zone": guest.zone.encode(), "region": guest.region.encode()},
        **({_PUBLIC_KEYS: {"0": {"openssh-key": guest.public_key.encode()}}} if guest.public_key else {}),
        "reservation-id": guest.instance.reservation_id.encode(),
        "security-groups": groups,
        "services": {"domain": guest.domain.encode(), "partition": b"aws"},
    }


def _interface(guest: GuestMetadata, groups: bytes) -> Node:
    cidr = guest.cidr.encode()
    return {
        "device-number": b"0",
        "local-hostname": guest.hostname.encode(),
        "local-ipv4s": guest.instance.ip.encode(),
        "mac": guest.instance.mac.encode(),
        "owner-id": guest.instance.project_id.encode(),
        "security-groups": groups,
        "subnet-ipv4-cidr-block": cidr,
        "vpc-ipv4-cidr-block": cidr,
    }


def _identity(guest: GuestMetadata) -> bytes:
    launched_at = guest.instance.launched_at or guest.instance.created_at
    document = {
        "accountId": guest.instance.project_id,
        "architecture": guest.instance.architecture,
        "availabilityZone": guest.zone,
        "billingProducts": None,
        "devpayProductCodes": None,
        "imageId": guest.instance.image_id,
        "instanceId": guest.instance.id,
        "instanceType": guest.instance.instance_type,
        "kernelId": None,
        "marketplaceProductCodes": None,
        "pendingTime": launched_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "privateIp": guest.instance.ip,
        "ramdiskId": None,
        "region": guest.region,
        "version": "2017-09-30",
    }
    return json.dumps(document, indent=2).encode()
