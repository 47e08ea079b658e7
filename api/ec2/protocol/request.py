"""From the flat parameters of the EC2 query protocol to nested Python values, by the input shape of the action.

The names are those of botocore's ``EC2Serializer``: ``queryName``, else ``locationName`` with a capital, else the
member's own; a list is ``Name.N``. Clients begin to count at 1 (most) or 0 (libcloud) and leave holes.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, Final

from api.ec2.protocol.errors import RequestEntityTooLarge, UnknownParameter
from api.ec2.protocol.form import MAX_PAIRS
from api.ec2.protocol.model import OperationModel, Shape
from api.ec2.protocol.timestamps import parse_moment
from controller.domain.errors import InvalidParameter, MissingParameter

MAX_DEPTH = 12
MAX_INDEX = 65535
_NOT_PARAMETERS = frozenset({
    "Action", "Version", "AWSAccessKeyId", "Signature", "SignatureMethod", "SignatureVersion", "Timestamp",
    "Expires", "SecurityToken", "AUTHPARAMS",
})  # fmt: skip
_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_FLOAT = re.compile(r"[+-]?[0-9]{1,30}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?")
# Neither can be answered in XML 1.0; a NUL is refused by PostgreSQL as well.
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


class _Absent:
    """Nothing was given, or only empty text."""


_ABSENT: Final = _Absent()


class _Node:
    """One segment of the dotted names, with what was given below it."""

    __slots__ = ("children", "value")

    def __init__(self) -> None:
        self.value = ""
        self.children: dict[str, _Node] = {}


_Reader = Callable[[_Node, str], Any]


def parse(pairs: Iterable[tuple[str, str]], operation: OperationModel) -> dict[str, Any]:
    """The parameters of a call, named as in botocore's input shape.

    Empty values are the same as none (Terraform sends them), but for members named ``Value``: the value of a tag
    or of a filter may be empty. Blobs are bytes, timestamps are in UTC. Signature parameters are passed over.

    Raises:
        InvalidParameter: a value that its member cannot have, or a name that was given twice.
        MissingParameter: a member that the model requires.
        UnknownParameter: a name that the action does not have, with a value.
        RequestEntityTooLarge: more than 2,000 parameters.
    """
    root = _grow(pairs)
    shape = operation.input_shape
    if shape is None:
        _refuse_children(root, "")
        return {}
    parameters: dict[str, Any] = _structure_reader(shape, top=True)(root, "")
    return parameters


def decode_base64(text: str, parameter: str) -> bytes:
    """The bytes of a parameter in base64, as RunInstances' ``UserData`` is; white space is passed over.

    Raises:
        InvalidParameter: it is not base64.
    """
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _invalid(parameter, text, "it has to be base64") from error


def _grow(pairs: Iterable[tuple[str, str]]) -> _Node:
    root = _Node()
    seen: set[str] = set()
    for name, value in pairs:
        if name in _NOT_PARAMETERS or name.lower().startswith("x-amz-"):
            continue
        if name in seen:
            raise _invalid(name, value, "it is given more than once")
        seen.add(name)
        if len(seen) > MAX_PAIRS:
            raise RequestEntityTooLarge(reason=f"at most {MAX_PAIRS} parameters are accepted")
        node = root
        segments = name.split(".", MAX_DEPTH)
        if len(segments) > MAX_DEPTH:
            raise UnknownParameter(parameter=_short(name))
        for segment in segments:
            node = node.children.setdefault(segment, _Node())
        node.value = value
    return root


# --- one reader for each shape, made once ----------------------------------------------------------------


def query_name(member: Shape, name: str) -> str:
    """The name of a structure's member on the wire, as botocore's ``EC2Serializer`` forms it."""
    if "queryName" in member.serialization:
        return str(member.serialization["queryName"])
    location = member.serialization.get("name")
    return location[0].upper() + location[1:] if location else name


def _reader(shape: Shape, may_be_empty: bool) -> _Reader:
    if shape.type_name == "structure":
        return _structure_reader(shape)
    if shape.type_name == "list":
        return _list_reader(shape, may_be_empty)
    return _scalar_reader(shape.type_name, may_be_empty)


_structure_readers: dict[tuple[str, bool], _Reader] = {}


def _structure_reader(shape: Shape, *, top: bool = False) -> _Reader:
    made = _structure_readers.get((shape.name, top))
    if made is None:
        made = _structure_readers[shape.name, top] = _make_structure_reader(shape, top)
    return made


def _make_structure_reader(shape: Shape, top: bool) -> _Reader:
    by_query_name = {query_name(member, name): (name, member) for name, member in shape.members.items()}
    required = tuple((name, query_name(shape.members[name], name)) for name in shape.required_members)
    readers: dict[str, tuple[str, _Reader]] = {}

    def reader(segment: str) -> tuple[str, _Reader] | None:
        # Made when first needed: a shape may contain itself.
        if segment not in readers and segment in by_query_name:
            name, member = by_query_name[segment]
            readers[segment] = name, _reader(member, may_be_empty=not top and segment == "Value")
        return readers.get(segment)

    def read(node: _Node, path: str) -> Any:
        if node.value:
            raise _invalid(path, node.value, f"it has members; give it as {path}.Name")
        result = {}
        for segment, child in node.children.items():
            found = reader(segment)
            if found is None:
                _refuse(child, _join(path, segment))
            elif (value := found[1](child, _join(path, segment))) is not _ABSENT:
                result[found[0]] = value
        if not result and not top:
            return _ABSENT
        for name, segment in required:
            if name not in result:
                raise MissingParameter(parameter=_join(path, segment))
        return result

    return read


@cache
def _scalar_reader(type_name: str, may_be_empty: bool) -> _Reader:
    convert = _CONVERTERS[type_name]
    keep_empty = may_be_empty and type_name in ("string", "blob")

    def read(node: _Node, path: str) -> Any:
        _refuse_children(node, path)
        return convert(node.value, path) if node.value or keep_empty else _ABSENT

    return read


def _list_reader(shape: Shape, may_be_empty: bool) -> _Reader:
    element = _reader(shape.member, may_be_empty)

    def read(node: _Node, path: str) -> Any:
        if node.value:
            raise _invalid(path, node.value, f"it is a list; give it as {path}.1")
        if node.children.keys() == {"member"}:  # as the other query protocols of AWS write lists
            node, path = node.children["member"], f"{path}.member"
        elements: dict[int, Any] = {}
        for segment, child in node.children.items():
            where = _join(path, segment)
            if not (segment.isascii() and segment.isdigit() and len(segment) <= 5 and int(segment) <= MAX_INDEX):
                _refuse(child, where)
                continue
            value = element(child, where)
            if value is not _ABSENT:
                if int(segment) in elements:
                    raise _invalid(where, child.value, "the same index is given more than once")
                elements[int(segment)] = value
        return [elements[index] for index in sorted(elements)] or _ABSENT

    return read


# --- single values ---------------------------------------------------------------------------------------


def _string(text: str, path: str) -> str:
    if _NOT_XML.search(text):
        raise _invalid(path, text, "it has a character that XML cannot carry")
    return text


def _boolean(text: str, path: str) -> bool:
    value = _BOOLEANS.get(text.lower())
    if value is None:
        raise _invalid(path, text, "it has to be true or false")
    return value


def _integer(bits: int) -> Callable[[str, str], int]:
    def convert(text: str, path: str) -> int:
        if not _INTEGER.fullmatch(text) or not -(1 << bits - 1) <= int(text) < 1 << bits - 1:
            raise _invalid(path, text, f"it has to be a whole number of {bits} bits")
        return int(text)

    return convert


def _float(text: str, path: str) -> float:
    if not _FLOAT.fullmatch(text):
        raise _invalid(path, text, "it has to be a number")
    return float(text)


def _moment(text: str, path: str) -> Any:
    try:
        return parse_moment(text)
    except ValueError as error:
        raise _invalid(path, text, "it has to be a time such as 2026-01-02T03:04:05Z") from error


_CONVERTERS: dict[str, Callable[[str, str], Any]] = {
    "string": _string,
    "character": _string,
    "boolean": _boolean,
    "integer": _integer(32),
    "long": _integer(64),
    "float": _float,
    "double": _float,
    "blob": decode_base64,
    "timestamp": _moment,
}


# --- what is refused -------------------------------------------------------------------------------------


def _refuse(node: _Node, path: str) -> None:
    """Refuse the first name at or below this node that has a value; a name without one does no harm."""
    if node.value:
        raise UnknownParameter(parameter=_short(path))
    _refuse_children(node, path)


def _refuse_children(node: _Node, path: str) -> None:
    for segment, child in node.children.items():
        _refuse(child, _join(path, segment))


def _join(path: str, segment: str) -> str:
    return f"{path}.{segment}" if path else segment


def _short(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:100]}…"


def _invalid(parameter: str, value: str, reason: str) -> InvalidParameter:
    return InvalidParameter(parameter=_short(parameter), value=_short(value), reason=reason)
