"""How REST says what went wrong: problem+json (RFC 9457), by one table from the errors of the domain to statuses."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType

from flask import Response

from controller.domain import errors as domain
from controller.domain.errors import CloudError

CONTENT_TYPE = "application/problem+json"
_INTERNAL = "An internal error has occurred; see the log."


class TooLarge(domain.BadRequest):
    code = "request.too_large"
    message = "The body has more than {limit} bytes."


class UnsupportedMediaType(domain.BadRequest):
    code = "request.media_type"
    message = "The body must be application/json, not '{found}'."


STATUS: Mapping[type[CloudError], int] = MappingProxyType(
    {
        CloudError: 500,
        TooLarge: 413,
        UnsupportedMediaType: 415,
        domain.BadRequest: 400,
        domain.AuthenticationFailed: 401,
        domain.NotAuthorized: 403,
        domain.NotFound: 404,
        domain.Conflict: 409,
        domain.QuotaExceeded: 403,
        domain.Exhausted: 503,
        domain.Unavailable: 503,
        domain.ClaimConflict: 503,
    }
)


def status_of(error: CloudError) -> int:
    """The status of the nearest class that the table has."""
    return next(STATUS[base] for base in type(error).__mro__ if base in STATUS)


def problem_of(error: CloudError) -> Response:
    """The answer to an error of the domain; of an internal one nothing is told."""
    status = status_of(error)
    if status == 500:
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
