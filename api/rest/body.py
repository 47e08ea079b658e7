"""A request's JSON body, read into a record: each field has the type that the record says, or is refused by name."""

import json
import re
import types
import typing
from dataclasses import MISSING, fields
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from flask import Request

from api.rest.problem import TooLarge, UnsupportedMediaType
from controller.domain.errors import BadRequest, InvalidParameter, MissingParameter

T = TypeVar("T")
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # JSON can say it, no text can
_NAMES = {str: "a text", int: "a whole number", bool: "true or false", float: "a number"}


class NotJson(BadRequest):
    code = "request.not_json"
    message = "The body is no JSON object: {reason}."


def read_body(request: Request, record: type[T], max_bytes: int) -> T:
    """The body as a record. Fields that the record does not have are ignored: the caller may be newer than we are.

    Raises:
        TooLarge, UnsupportedMediaType, NotJson, MissingParameter, InvalidParameter
    """
    if (request.content_length or 0) > max_bytes:
        raise TooLarge(limit=max_bytes)
    if request.mimetype != "application/json":
        raise UnsupportedMediaType(found=ascii(request.mimetype[:60]).strip("'"))
    try:
        document = json.loads(request.get_data(cache=False))
    except (ValueError, RecursionError) as error:
        raise NotJson(reason=str(error)[:100]) from error
    if not isinstance(document, dict):
        raise NotJson(reason=f"it is {type(document).__name__}")
    return _record(document, record)


def _record(document: dict[str, Any], record: type[T]) -> T:
    hints = get_type_hints(record)
    values = {}
    for field in fields(record):  # type: ignore[arg-type]
        if field.name in document:
            values[field.name] = _value(hints[field.name], document[field.name], field.name)
        elif field.default is MISSING:
            raise MissingParameter(parameter=field.name)
    return record(**values)


def _value(hint: Any, value: Any, where: str) -> Any:
    if get_origin(hint) in (types.UnionType, typing.Union):
        if value is None:
            return None
        hint = next(a for a in get_args(hint) if a is not type(None))
    if get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise InvalidParameter(parameter=where, value=_shown(value), reason="it is a list")
        return tuple(_value(get_args(hint)[0], each, where) for each in value)
    if type(value) is not hint and not (hint is float and type(value) is int):
        raise InvalidParameter(parameter=where, value=_shown(value), reason=f"it is {_NAMES[hint]}")
    if hint is str and _HALF_CHARACTER.search(value):
        raise InvalidParameter(parameter=where, value=_shown(value), reason="it has half a character in it")
    return value


def _shown(value: Any) -> str:
    return json.dumps(value)[:60]
