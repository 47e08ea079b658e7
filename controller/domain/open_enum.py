"""Enums that the next release may add to: what is not known is kept as it is."""

from enum import StrEnum
from typing import Any, Self

_MAX_CHARS = 64


class OpenEnum(StrEnum):
    """An enum of words, some of which only a newer release knows.

    ``Cls("NEW")`` is then a value of the enum that equals that word, prints as it, and is none of the members: no
    row of a table, no ``is`` and no ``==`` with a member fits it, so code that acts on members leaves it alone.
    Iteration finds the members only.
    """

    @property
    def known(self) -> bool:
        """Whether this release has a member of this value."""
        return self._value_ in type(self)._value2member_map_

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str) or not 0 < len(value) <= _MAX_CHARS:
            return None
        unknown = str.__new__(cls, value)
        unknown._name_ = unknown._value_ = value
        return unknown

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Copied by its value: one that is unknown cannot be found by name."""
        return type(self), (self._value_,)
