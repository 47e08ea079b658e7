"""Filters of the Describe actions: AND between names, OR between the values of one name.

``*`` stands for any text and ``?`` for one character, a backslash takes their meaning away:
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Filtering.html
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from controller.domain.errors import InvalidParameter, MissingParameter

Item = TypeVar("Item")
ValuesOf: TypeAlias = Callable[[Item], Iterable[str]]
TagsOf: TypeAlias = Callable[[Item], Mapping[str, str]]
Predicate: TypeAlias = Callable[[Item], bool]
MAX_VALUES = 200
_TOKEN = re.compile(r"\\(.)|([*?])|([^\\*?]+|\\)", re.DOTALL)


def compile_filters(
    filters: Sequence[Mapping[str, Any]],
    known: Mapping[str, ValuesOf[Item]],
    tags: TagsOf[Item] | None = None,
) -> Predicate[Item]:
    """A test of one item, for the ``Filters`` parameter of a call.

    ``known`` has a function from an item to its values for each filter that the action offers; with ``tags``
    also ``tag:KEY``, ``tag-key`` and ``tag-value`` are offered. No filters: every item passes.

    Raises:
        InvalidParameter: a filter that is not offered, or one with no values or too many.
        MissingParameter: a filter without a name.
    """
    tests = [_compile(number, entry, known, tags) for number, entry in enumerate(filters, 1)]
    if len(tests) == 1:
        return tests[0]
    return lambda item: all(test(item) for test in tests)


def _compile(
    number: int, entry: Mapping[str, Any], known: Mapping[str, ValuesOf[Item]], tags: TagsOf[Item] | None
) -> Predicate[Item]:
    name, values = entry.get("Name"), entry.get("Values") or []
    if not name:
        raise MissingParameter(parameter=f"Filter.{number}.Name")
    if not 1 <= len(values) <= MAX_VALUES:
        raise InvalidParameter(
            parameter=f"Filter.{number}.Value", value=name, reason=f"it has to have 1 to {MAX_VALUES} values"
        )
    values_of = known.get(name) or (_tag_values(name, tags) if tags else None)
    if values_of is None:
        raise InvalidParameter(parameter="filter", value=name, reason=f"The filter '{name}' is invalid")
    matches = matcher(values)
    return lambda item: any(matches(value) for value in values_of(item))


def _tag_values(name: str, tags: TagsOf[Item]) -> ValuesOf[Item] | None:
    if name == "tag-key":
        return lambda item: tags(item).keys()
    if name == "tag-value":
        return lambda item: tags(item).values()
    kind, colon, key = name.partition(":")
    if kind != "tag" or not colon or not key:
        return None

    def values_of(item: Item) -> Iterable[str]:
        value = tags(item).get(key)
        return () if value is None else (value,)

    return values_of


def matcher(values: Iterable[str]) -> Callable[[str], bool]:
    """A test of one text against any of the patterns; those without a wildcard cost one look-up together."""
    exact: set[str] = set()
    patterns: list[str] = []
    for value in values:
        pieces = _pieces(value)
        if any(wild for _, wild in pieces):
            patterns.append(_regex(pieces))
        else:
            exact.add("".join(text for text, _ in pieces))
    if not patterns:
        return exact.__contains__
    regex = re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.DOTALL)
    return lambda text: text in exact or regex.fullmatch(text) is not None


def _pieces(value: str) -> list[tuple[str, bool]]:
    """The pattern in parts; the flag tells a wildcard from text. A backslash at the very end is itself."""
    return [(m[1] or m[2] or m[3], m[2] is not None) for m in _TOKEN.finditer(value)]


def _regex(pieces: Iterable[tuple[str, bool]]) -> str:
    """The pattern as a regular expression that never backtracks over more than one ``*``.

    What stands between two stars is found at its first place and kept (an atomic group): a later place could
    not help the rest to match. So a pattern of many stars costs no more than one scan of the text.
    """
    parts = [""]
    for text, wild in pieces:
        if text == "*" and wild:
            parts.append("")
        else:
            parts[-1] += "." if wild else re.escape(text)
    if len(parts) == 1:
        return parts[0]
    first, *middle, last = parts
    return first + "".join(f"(?>.*?{part})" for part in middle if part) + ".*" + last
