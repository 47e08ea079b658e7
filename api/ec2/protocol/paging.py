"""Pages of the Describe actions: MaxResults, and a NextToken that only this module understands.

A token holds a position, is bound to the action and the other parameters of its request, and grants nothing:
a forged one shows no more than the request without it would.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from controller.domain.errors import InvalidCombination, InvalidPage, InvalidParameter

MIN_RESULTS, MAX_RESULTS = 5, 1000
_MAX_TOKEN = 1024
_NOT_BOUND = frozenset({"NextToken", "MaxResults", "DryRun"})


def page_size(
    parameters: Mapping[str, Any], *, ids: str | None = None, maximum: int = MAX_RESULTS, minimum: int = MIN_RESULTS
) -> int | None:
    """How many items a page has at most; None when the caller did not ask for pages.

    ``ids`` names the parameter of explicit ids, which cannot be had in pages.

    Raises:
        InvalidParameter: MaxResults is out of bounds.
        InvalidCombination: MaxResults together with explicit ids.
    """
    size = parameters.get("MaxResults")
    if size is None:
        return maximum if parameters.get("NextToken") else None
    if not minimum <= size <= maximum:
        raise InvalidParameter(parameter="MaxResults", value=size, reason=f"it has to be from {minimum} to {maximum}")
    if ids and parameters.get(ids):
        raise InvalidCombination(reason=f"The parameter {ids} cannot be used with the parameter MaxResults")
    return int(size)


def encode_token(action: str, parameters: Mapping[str, Any], position: str) -> str:
    """The NextToken of a page that ended at ``position`` (for example the last id it showed)."""
    document = json.dumps([_digest(action, parameters), position], separators=(",", ":"))
    return base64.urlsafe_b64encode(document.encode()).decode().rstrip("=")


def position_of(action: str, parameters: Mapping[str, Any]) -> str | None:
    """Where the page that ``parameters["NextToken"]`` asks for begins after; None for the first page.

    Raises:
        InvalidPage: the token was not given out, or for another action or other parameters.
    """
    token = parameters.get("NextToken")
    if not token:
        return None
    try:
        digest, position = json.loads(_decode(token))
    except (ValueError, TypeError, RecursionError, binascii.Error) as error:
        raise InvalidPage from error
    if digest != _digest(action, parameters) or not isinstance(position, str):
        raise InvalidPage
    return position


def _decode(token: str) -> bytes:
    if len(token) > _MAX_TOKEN:
        raise ValueError("too long")
    return base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)


def _digest(action: str, parameters: Mapping[str, Any]) -> str:
    bound = {key: value for key, value in parameters.items() if key not in _NOT_BOUND}
    document = json.dumps([action, bound], sort_keys=True, default=str)
    return hashlib.sha256(document.encode()).hexdigest()[:24]
