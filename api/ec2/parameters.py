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
_PARAMETERS = re.compile(rf"\b({'|'.join(EC2_PARAMETER)})\b")
# In a sentence only what cannot be a word of it is a name.
_IN_TEXT = re.compile(rf"\b({'|'.join(name for name in EC2_PARAMETER if '_' in name)})\b")


def message_of(error: CloudError) -> str:
    """The text of an error for EC2's caller."""
    parameter = error.fields.get("parameter")
    if parameter is None or not _PARAMETERS.search(str(parameter)):
        return str(error)
    fields = {**error.fields, "parameter": _PARAMETERS.sub(_ec2_name, str(parameter))}
    if "reason" in fields:
        fields["reason"] = _IN_TEXT.sub(_ec2_name, str(fields["reason"]))
    return error.message.format(**fields)


def _ec2_name(found: re.Match[str]) -> str:
    return EC2_PARAMETER[found[1]]
