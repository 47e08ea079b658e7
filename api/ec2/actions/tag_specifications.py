"""Tags as the parameters of a call give them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from api.ec2.actions.context import UnsupportedParameter
from controller.domain.errors import InvalidParameter, MissingParameter


def read_tags(entries: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Key -> value; a value that is not given is empty.

    Raises:
        InvalidParameter: a key is given twice. MissingParameter: one is not given.
    """
    tags: dict[str, str] = {}
    for entry in entries:
        key = entry.get("Key")
        if not key:
            raise MissingParameter(parameter="Tag.Key")
        if key in tags:
            raise InvalidParameter(parameter="Tag.Key", value=key[:140], reason="the key is given more than once")
        tags[key] = entry.get("Value", "")
    return tags


def read_tag_specifications(entries: Sequence[Mapping[str, Any]], *allowed: str) -> dict[str, dict[str, str]]:
    """Resource type -> key -> value.

    Raises:
        UnsupportedParameter: the call makes no resource of this type. See also ``read_tags``.
    """
    found: dict[str, dict[str, str]] = {}
    for entry in entries:
        kind = entry.get("ResourceType")
        if not kind:
            raise MissingParameter(parameter="TagSpecification.ResourceType")
        if kind not in allowed:
            reason = f"nothing of the type {kind[:40]} is made here, only {', '.join(allowed)}"
            raise UnsupportedParameter(parameter="TagSpecification.ResourceType", reason=reason)
        if kind in found:
            raise InvalidParameter(
                parameter="TagSpecification.ResourceType", value=kind, reason="the type is given more than once"
            )
        found[kind] = read_tags(entry.get("Tags", ()))
    return found
