"""The parameters of operations under the names that they have in EC2."""

import re
from collections.abc import Mapping
from types import MappingProxyType

from controller.domain.errors import CloudError

EC2_PARAMETER: Mapping[str, str] = MappingProxyType(
    {
        "address": "PrivateIpAddress",
        "client_token": "ClientToken",
        "group_name": "GroupName",
        "instance_type": "InstanceType",
        "key_name": "KeyName",
        "key_type": "KeyType",
        "max_count": "MaxCount",
        "min_count": "MinCount",
        "shutdown_behavior": "InstanceInitiatedShutdownBehavior",
        "strategy": "Strategy",
        "tag_key": "Tag.Key",
        "tag_value": "Tag.Value",
    }
)
# The text of a reason may contain words of a user; of parameters it names these two.
_IN_TEXT = re.compile(r"\b(min_count|max_count)\b")


def message_of(error: CloudError) -> str:
    """The text of a domain's error for EC2's caller. ``parameter`` may name several: ``min_count/max_count``."""
    names = str(error.fields.get("parameter", "")).split("/")
    if not any(name in EC2_PARAMETER for name in names):
        return str(error)
    fields = {**error.fields, "parameter": "/".join(EC2_PARAMETER.get(name, name) for name in names)}
    if "reason" in fields:
        fields["reason"] = _IN_TEXT.sub(_ec2_name, str(fields["reason"]))
    return error.message.format(**fields)


def _ec2_name(found: re.Match[str]) -> str:
    return EC2_PARAMETER[found[1]]
