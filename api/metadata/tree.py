"""The metadata of an instance as a tree of names, and how a path finds its way in it.

Categories: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/ec2-instance-metadata.html
"""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC

from api.metadata.facts import Facts

# A folder is a mapping, a leaf is its contents.
Node = bytes | Mapping[str, "Node"]

LATEST = "latest"
# What `/` lists; any other dated version is the same.
_VERSIONS = ("1.0", "2007-01-19", "2009-04-04", "2016-09-02", "2018-09-24", "2021-03-23", LATEST)
_VERSION = re.compile(r"1\.0|\d{4}-\d{2}-\d{2}|latest")
_PUBLIC_KEYS = "public-keys"


def answer(facts: Facts, path: str) -> bytes | None:
    """The contents of a leaf or the listing of a folder; None where there is nothing.

    A folder answers with and without a slash at its end.
    """
    version, *rest = [part for part in path.split("/") if part] or [""]
    if not version:
        return "\n".join(_VERSIONS).encode()
    if not _VERSION.fullmatch(version):
        return None
    node = _walk(_root(facts), rest)
    if node is None or isinstance(node, bytes):
        return node
    return _listing(facts, node, rest)


def _walk(root: Node, parts: Sequence[str]) -> Node | None:
    node = root
    for part in parts:
        if isinstance(node, bytes) or part not in node:
            return None
        node = node[part]
    return node


def _listing(facts: Facts, folder: Mapping[str, Node], parts: Sequence[str]) -> bytes:
    if parts and parts[-1] == _PUBLIC_KEYS:
        return f"0={facts.key_name or 'key'}".encode()
    # The top of a version is listed without slashes, as EC2 does.
    slash = "/" if parts else ""
    return "\n".join(sorted(f"{n}{slash}" if isinstance(c, Mapping) else n for n, c in folder.items())).encode()


def _root(facts: Facts) -> Node:
    return {
        "dynamic": {"instance-identity": {"document": _identity(facts)}},
        "meta-data": _meta_data(facts),
        **({"user-data": facts.user_data} if facts.user_data else {}),
    }


def _meta_data(facts: Facts) -> Node:
    name = facts.hostname.encode()
    groups = b"default"
    return {
        "ami-id": facts.image_id.encode(),
        "ami-launch-index": str(facts.launch_index).encode(),
        "ami-manifest-path": b"(unknown)",
        "block-device-mapping": {"ami": b"vda", "root": b"/dev/vda"},
        "hostname": name,
        "instance-action": b"none",
        "instance-id": facts.instance_id.encode(),
        "instance-life-cycle": b"on-demand",
        "instance-type": facts.instance_type.encode(),
        "local-hostname": name,
        "local-ipv4": facts.ip.encode(),
        "mac": facts.mac.encode(),
        "network": {"interfaces": {"macs": {facts.mac: _interface(facts, groups)}}},
        "placement": {"availability-zone": facts.zone.encode(), "region": facts.region.encode()},
        **({_PUBLIC_KEYS: {"0": {"openssh-key": facts.public_key.encode()}}} if facts.public_key else {}),
        "reservation-id": facts.reservation_id.encode(),
        "security-groups": groups,
        "services": {"domain": facts.domain.encode(), "partition": b"aws"},
    }


def _interface(facts: Facts, groups: bytes) -> Node:
    cidr = facts.cidr.encode()
    return {
        "device-number": b"0",
        "local-hostname": facts.hostname.encode(),
        "local-ipv4s": facts.ip.encode(),
        "mac": facts.mac.encode(),
        "owner-id": facts.project_id.encode(),
        "security-groups": groups,
        "subnet-ipv4-cidr-block": cidr,
        "vpc-ipv4-cidr-block": cidr,
    }


def _identity(facts: Facts) -> bytes:
    document = {
        "accountId": facts.project_id,
        "architecture": facts.architecture,
        "availabilityZone": facts.zone,
        "billingProducts": None,
        "devpayProductCodes": None,
        "imageId": facts.image_id,
        "instanceId": facts.instance_id,
        "instanceType": facts.instance_type,
        "kernelId": None,
        "marketplaceProductCodes": None,
        "pendingTime": facts.launched_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "privateIp": facts.ip,
        "ramdiskId": None,
        "region": facts.region,
        "version": "2017-09-30",
    }
    return json.dumps(document, indent=2).encode()
