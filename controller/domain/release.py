"""Which release this is, and which versions of the messages the releases speak.

A version of the messages rises with a new kind, or a new value of an enum: what an older reader cannot take. New
fields need none, for a reader ignores what it does not know.
"""

from collections.abc import Mapping
from types import MappingProxyType

from controller.domain.errors import InvalidParameter

# The one place of it: setup.cfg reads it from here.
RELEASE = "0.2.0"
# The newest version that each release speaks; one that is not listed speaks what the last one before it did.
SPOKEN: Mapping[str, int] = MappingProxyType({"0.1.0": 1, "0.2.0": 2})
# The version of what says nothing of its version: heartbeats of 0.1 have no such field.
OLDEST_VERSION = 1
# The first release whose services write themselves into the table of services; older ones cannot be seen there.
FIRST_SEEN = "0.2.0"


def parts(release: str) -> tuple[int, ...]:
    """The numbers of a release, three at least, to be compared; what follows them (``0.3.0.dev1``) does not count.

    Raises:
        InvalidParameter: it does not begin with two numbers.
    """
    numbers: list[int] = []
    for part in release.split("."):
        if not part.isascii() or not part.isdigit():
            break
        numbers.append(int(part))
    if len(numbers) < 2:
        raise InvalidParameter(parameter="release", value=release[:40], reason="a release is like 0.2.0")
    return (*numbers, 0)[: max(3, len(numbers))]


def speaks(release: str) -> int:
    """The newest version of the messages that a release speaks, as far as this one knows."""
    older = [version for name, version in SPOKEN.items() if parts(name) <= parts(release)]
    return max(older, default=OLDEST_VERSION)


def oldest_that_speaks(version: int) -> str:
    """The first release that speaks a version."""
    return min((name for name, spoken in SPOKEN.items() if spoken >= version), key=parts)
