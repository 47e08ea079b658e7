"""From Python values to the XML of an EC2 answer, by the output shape of the action.

A writer is made once for each shape, and then only looks up and appends: the list of thousands of instances is
the answer that is asked for most.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from api.ec2.protocol.model import OperationModel, Shape
from api.ec2.protocol.timestamps import format_moment

_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\r": "&#13;"})
_Append = Callable[[str], None]
_Writer = Callable[[Any, _Append], None]


@dataclass(frozen=True, slots=True)
class Fragment:
    """The inside of an element that has been written already, to be used again in other answers."""

    xml: str


def serialize(operation: OperationModel, result: Mapping[str, Any], *, request_id: str, version: str) -> bytes:
    """The answer of an action, in UTF-8; ``version`` is the API version that the request named.

    ``result`` is keyed as botocore's output shape; None is the same as absent; an empty list becomes an empty
    element. A ``Fragment`` may stand for any structure. An action without an output answers
    ``<return>true</return>``, as EC2 does.

    Raises:
        KeyError: a key that the shape does not have.
        TypeError: a value that is not of its member's type.
    """
    parts: list[str] = [
        f'{_DECLARATION}<{operation.name}Response xmlns="http://ec2.amazonaws.com/doc/{escape(version)}/">'
        f"<requestId>{escape(request_id)}</requestId>"
    ]
    if operation.output_shape is not None:
        _content(operation.output_shape)(result, parts.append)
    elif result:
        raise KeyError(f"{operation.name} has no output: {', '.join(result)}")
    else:
        parts.append("<return>true</return>")
    parts.append(f"</{operation.name}Response>\n")
    return "".join(parts).encode()


def fragment(shape: Shape, value: Mapping[str, Any]) -> Fragment:
    """One structure of an answer, written now.

    Raises: as ``serialize``.
    """
    parts: list[str] = []
    _content(shape)(value, parts.append)
    return Fragment("".join(parts))


def error_document(code: str, message: str, request_id: str) -> bytes:
    """An error in EC2's format; note ``RequestID``, unlike ``requestId`` of an answer."""
    return (
        f"{_DECLARATION}<Response><Errors><Error><Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
        f"</Error></Errors><RequestID>{escape(request_id)}</RequestID></Response>\n"
    ).encode()


def escape(text: str) -> str:
    """Text for the inside of an element; what XML 1.0 cannot carry becomes U+FFFD.

    A carriage return is escaped too, since a parser would make a line feed of it.
    """
    if text.isprintable() and "&" not in text and "<" not in text and ">" not in text and '"' not in text:
        return text
    return "".join(c if _is_xml(c) else "\ufffd" for c in text).translate(_ESCAPES)


def _is_xml(char: str) -> bool:
    """Whether XML 1.0 can carry the character (https://www.w3.org/TR/xml/#charsets)."""
    return (
        " " <= char <= "\ud7ff"
        or char in "\t\n\r"
        or "\ue000" <= char <= "\ufffd"
        or "\U00010000" <= char <= "\U0010ffff"
    )


# --- one writer for each shape, made once ----------------------------------------------------------------


_contents: dict[str, _Writer] = {}


def _content(shape: Shape) -> _Writer:
    """The writer of a structure's members, without the element around them."""
    made = _contents.get(shape.name)
    if made is None:
        made = _contents[shape.name] = _structure_content(shape)
    return made


class _Members(dict[str, _Writer]):
    """The writers of a structure's members; each is made when first needed, for a shape may contain itself."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self._shape = shape

    def __missing__(self, name: str) -> _Writer:
        member = self._shape.members.get(name)
        if member is None:
            raise KeyError(f"{self._shape.name} has no member {name!r}")
        writer = self[name] = _element(member, member.serialization.get("name", name))
        return writer


def _structure_content(shape: Shape) -> _Writer:
    members = _Members(shape)

    def write(value: Any, append: _Append) -> None:
        if value.__class__ is Fragment:
            append(value.xml)
            return
        if not isinstance(value, Mapping):
            raise TypeError(f"{shape.name} has to be a mapping, not {value!r}")
        for name, item in value.items():
            if item is not None:
                members[name](item, append)

    return write


def _element(shape: Shape, tag: str) -> _Writer:
    if shape.type_name == "structure":
        return _structure_element(shape, tag)
    if shape.type_name == "list":
        return _list_element(shape, tag)
    return _scalar_element(shape.type_name, tag)


def _structure_element(shape: Shape, tag: str) -> _Writer:
    content, start, end, empty = _content(shape), f"<{tag}>", f"</{tag}>", f"<{tag}/>"

    def write(value: Any, append: _Append) -> None:
        if value:
            append(start)
            content(value, append)
            append(end)
        elif isinstance(value, Mapping):
            append(empty)
        else:
            raise TypeError(f"<{tag}> has to be a mapping, not {value!r}")

    return write


def _list_element(shape: Shape, tag: str) -> _Writer:
    item, start, end, empty = _element(shape.member, _item_tag(shape)), f"<{tag}>", f"</{tag}>", f"<{tag}/>"

    def write(value: Any, append: _Append) -> None:
        if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
            raise TypeError(f"<{tag}> has to be a list, not {value!r}")
        if not value:
            append(empty)
            return
        append(start)
        for element in value:
            item(element, append)
        append(end)

    return write


def _item_tag(shape: Shape) -> str:
    return str(shape.member.serialization.get("name", "item"))


@cache
def _scalar_element(type_name: str, tag: str) -> _Writer:
    if type_name == "boolean":
        return _boolean_element(tag)
    if type_name in ("string", "character"):
        return _string_element(tag)
    text, start, end = _TEXTS[type_name], f"<{tag}>", f"</{tag}>"

    def write(value: Any, append: _Append) -> None:
        append(f"{start}{text(value)}{end}")

    return write


def _string_element(tag: str) -> _Writer:
    start, end = f"<{tag}>", f"</{tag}>"

    def write(value: Any, append: _Append) -> None:
        if not isinstance(value, str):
            raise TypeError(f"<{tag}> has to be text, not {value!r}")
        append(f"{start}{escape(value)}{end}")

    return write


def _boolean_element(tag: str) -> _Writer:
    yes, no = f"<{tag}>true</{tag}>", f"<{tag}>false</{tag}>"

    def write(value: Any, append: _Append) -> None:
        if value is True:
            append(yes)
        elif value is False:
            append(no)
        else:
            raise TypeError(f"<{tag}> has to be a boolean, not {value!r}")

    return write


def _integer(value: Any) -> str:
    if type(value) is not int:
        raise TypeError(f"not an integer: {value!r}")
    return str(value)


def _float(value: Any) -> str:
    if type(value) not in (int, float):
        raise TypeError(f"not a number: {value!r}")
    return repr(float(value))


def _blob(value: Any) -> str:
    if not isinstance(value, bytes):
        raise TypeError(f"not bytes: {value!r}")
    return base64.b64encode(value).decode()


def _timestamp(value: Any) -> str:
    if not isinstance(value, datetime):
        raise TypeError(f"not a datetime: {value!r}")
    return format_moment(value)


_TEXTS: Mapping[str, Callable[[Any], str]] = {
    "integer": _integer,
    "long": _integer,
    "float": _float,
    "double": _float,
    "blob": _blob,
    "timestamp": _timestamp,
}
