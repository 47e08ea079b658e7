"""Messages as JSON: written plainly, read with every value's type checked.

A reader ignores fields that it does not know and fills in the default of those it misses. An unknown word where a
member of an enum is expected is kept (``OpenEnum``).
"""

import functools
import json
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, get_args, get_origin, get_type_hints

from controller.domain.checks import LARGEST
from controller.domain.errors import NewerMessage, PoisonMessage
from controller.domain.messages import MESSAGES, GuestSpec, Message
from controller.domain.release import RELEASE

# See ``controller.domain.release``.
VERSION = 2
_KIND = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
MAX_BYTES = 16 * 1024 * 1024


def encode(message: Message) -> str:
    """The message as one JSON object: ``kind``, ``version`` and the fields."""
    return _json({"kind": message.KIND, "version": VERSION, **vars(message)})


def encode_guest(spec: GuestSpec) -> str:
    """One guest as a message carries it, to be kept."""
    return _json(vars(spec))


def decode(body: str | bytes) -> Message:
    """The message that ``encode`` wrote, of this or another release.

    Raises:
        PoisonMessage: not JSON, an unknown kind, a field that is missing or of another type.
        NewerMessage: an unknown kind, and the sender's release is newer than this one.
    """
    document = _document(body)
    kind = document.get("kind")
    cls = MESSAGES.get(kind) if isinstance(kind, str) else None
    if cls is None:
        version = document.get("version")
        is_word = isinstance(kind, str) and _KIND.fullmatch(kind)
        if is_word and type(version) is int and VERSION < version <= LARGEST:
            raise NewerMessage(kind=kind, version=version, release=RELEASE, speaks=VERSION)
        raise PoisonMessage(reason=f"unknown kind {str(kind)[:64]!r}")
    message = _read(cls, document)
    assert isinstance(message, Message)
    return message


def decode_guest(text: str) -> GuestSpec:
    """The guest that ``encode_guest`` wrote, in this or another release.

    Raises:
        PoisonMessage: see ``decode``.
    """
    spec = _read(GuestSpec, _document(text))
    assert isinstance(spec, GuestSpec)
    return spec


def _json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":"), default=vars)


def _document(body: str | bytes) -> dict[str, Any]:
    if len(body) > MAX_BYTES:
        raise PoisonMessage(reason=f"{len(body)} bytes are more than {MAX_BYTES}")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise PoisonMessage(reason=f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise PoisonMessage(reason="not a JSON object")
    return document


class _MismatchError(Exception):
    """A value is not of its field's type; its text begins with the path to the value."""


def _read(cls: Any, document: Mapping[str, Any]) -> Any:
    try:
        return _reader(cls)(document)
    except _MismatchError as error:
        raise PoisonMessage(reason=f"{document.get('kind', cls.__name__)}{error}") from error


@functools.cache
def _reader(hint: Any) -> Callable[[Any], Any]:
    """What makes a value of this type from its JSON. Made once for each type: every message goes through it."""
    if get_origin(hint) in (types.UnionType, typing.Union):
        return _optional_reader(_reader(next(a for a in get_args(hint) if a is not type(None))))
    if get_origin(hint) is tuple:
        return _tuple_reader(_reader(get_args(hint)[0]))
    if is_dataclass(hint) and isinstance(hint, type):
        types_of = get_type_hints(hint)
        return _object_reader(hint, {f.name: _reader(types_of[f.name]) for f in fields(hint)})
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _enum_reader(hint)
    return _plain_reader(hint)


def _optional_reader(item: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else item(value)


def _tuple_reader(item: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if not isinstance(value, list):
            raise _MismatchError(": expected a list")
        return tuple(map(item, value))

    return read


def _object_reader(cls: type[Any], readers: Mapping[str, Callable[[Any], Any]]) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if not isinstance(value, dict):
            raise _MismatchError(": expected an object")
        values = {}
        for name, reader in readers.items():
            if name in value:
                try:
                    values[name] = reader(value[name])
                except _MismatchError as error:
                    raise _MismatchError(f".{name}{error}") from error
        try:
            return cls(**values)
        except TypeError as error:
            raise _MismatchError(f": {error}") from error

    return read


def _enum_reader(hint: type[Enum]) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        try:
            return hint(value)
        except ValueError as error:
            raise _MismatchError(f": {error}") from error

    return read


def _plain_reader(hint: type[Any]) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if type(value) is not hint:
            raise _MismatchError(f": expected {hint.__name__}, got {type(value).__name__}")
        return value

    return read
