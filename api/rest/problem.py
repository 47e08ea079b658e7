"""Errors as problem+json (RFC 9457); the statuses are those of the table of all doors (``api/errors.py``)."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType

from flask import Response

from api.errors import row_for
from controller.domain.errors import BadRequest, CloudError

CONTENT_TYPE = "application/problem+json"
_INTERNAL = "An internal error has occurred; see the log."


class TooLarge(BadRequest):
    code = "request.too_large"
    message = "The body has more than {limit} bytes."


class UnsupportedMediaType(BadRequest):
    code = "request.media_type"
    message = "The body must be application/json, not '{found}'."


PROTOCOL_STATUS: Mapping[type[CloudError], int] = MappingProxyType({TooLarge: 413, UnsupportedMediaType: 415})


def status_of(error: CloudError) -> int:
    """The status of an error: of the protocol's own by the table here, of the domain's by that of all doors."""
    return PROTOCOL_STATUS.get(type(error)) or row_for(error).rest


def problem_of(error: CloudError) -> Response:
    """The answer to an error of the domain; of an internal one its text stays in the log."""
    status = status_of(error)
    if row_for(error).internal:
        return problem(500, "internal", _INTERNAL)
    field = error.fields.get("parameter")
    return problem(status, error.code, str(error), **({} if field is None else {"field": str(field)}))


def problem(status: int, code: str, detail: str, **members: str) -> Response:
    """One problem; ``code`` is public and permanent."""
    document = {
        "type": f"urn:pileus:error:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        **members,
    }
    return Response(json.dumps(document), status, content_type=CONTENT_TYPE)
