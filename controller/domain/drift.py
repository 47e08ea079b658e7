"""What a host tells differently from what was registered of it: one text, for a person and to be read back.

``memory_mib 16384 -> 8192; labels gpu,ssd -> ssd; MAC probe: killed after 10 s``: the left side of an arrow is what
was registered. So the text itself remembers it, and a host that returns to what it was has no drift any more.
"""

import re
from collections.abc import Mapping, Sequence

MAX_CHARS = 1024
# Labels come last: they may be long, and what is too long is cut.
CAPACITY = ("vcpus", "memory_mib", "disk_gib")
FACTS = (*CAPACITY, "hypervisor", "architecture", "zone", "disk_backends", "labels")
_ITEM = re.compile(rf"({'|'.join(FACTS)}) (\S+) -> (\S+)")
_NOTHING = "-"  # no fact can be that


def drift(text: str, before: Mapping[str, str], after: Mapping[str, str], notes: Sequence[str] = ()) -> str:
    """The new text: ``before`` and ``after`` this heartbeat, by fact; ``text`` is the old one.

    ``notes`` are what is wrong now, whatever was registered.
    """
    registered = {**before, **registered_by(text)}
    items = [
        f"{fact} {registered[fact] or _NOTHING} -> {after[fact] or _NOTHING}"
        for fact in FACTS
        if _differs(fact, registered[fact], after[fact])
    ]
    return "; ".join([*items, *notes])[:MAX_CHARS]


def registered_by(text: str) -> dict[str, str]:
    """What was registered of the facts that drift, as the text remembers it."""
    found = [_ITEM.fullmatch(item) for item in text.split("; ")]
    return {m[1]: "" if m[2] == _NOTHING else m[2] for m in found if m}


def accepted(text: str) -> str:
    """What is left of the text when a person has accepted what the host is now."""
    return "; ".join(item for item in text.split("; ") if not _ITEM.fullmatch(item))


def _differs(fact: str, registered: str, now: str) -> bool:
    """More capacity, or one disk backend more, is welcome; whatever else changes is drift."""
    if fact in CAPACITY:
        return int(now) < int(registered)
    if fact == "disk_backends":
        return not set(filter(None, registered.split(","))) <= set(now.split(","))
    return now != registered
