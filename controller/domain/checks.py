"""What an operator, a client or an agent may say: names that can be shown, numbers that fit their columns, texts that
every database takes."""

import re
from collections.abc import Collection, Iterable

from controller.domain.errors import InvalidParameter, NotFound

# Of a column of 32 bits, as PostgreSQL and MariaDB have them.
LARGEST = 2**31 - 1
_NAME_LENGTH = 255
# So many ids that were not found are named in an error.
_MISSING_NAMED = 20
# PostgreSQL keeps no NUL, and no database half a surrogate pair, which JSON can have.
_NOT_KEPT = re.compile("[\0\ud800-\udfff]")


def check_name(parameter: str, value: str) -> None:
    """Refuse an empty name, and one that is too long or has control characters. Raises InvalidParameter."""
    if not 1 <= len(value) <= _NAME_LENGTH or not value.isprintable():
        reason = f"1 to {_NAME_LENGTH} printable characters"
        raise InvalidParameter(parameter=parameter, value=ascii(value[:40]).strip("'"), reason=reason)


def check_number(parameter: str, value: int, least: int, most: int = LARGEST) -> None:
    """Refuse a number that lies outside of its range. Raises InvalidParameter."""
    if not least <= value <= most:
        raise InvalidParameter(parameter=parameter, value=value, reason=f"it lies between {least} and {most}")


def check_all_found(asked: Iterable[str], found: Collection[str], error: type[NotFound]) -> None:
    """Refuse ids or names that were asked for and are not among those found. Raises ``error``, which names them."""
    if missing := [each for each in dict.fromkeys(asked) if each not in found]:
        raise error(id=", ".join(missing[:_MISSING_NAMED]))


def storable(text: str) -> str:
    """The text as every database can keep it; what none can is replaced."""
    return _NOT_KEPT.sub("\N{REPLACEMENT CHARACTER}", text)


def one_line(text: str) -> str:
    """The text without line breaks and what else moves a terminal's cursor."""
    return "".join(c if c.isprintable() else " " for c in text)
