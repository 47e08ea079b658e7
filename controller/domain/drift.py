"""How a host differs from what was registered of it: one text, for people and to be parsed again.

``memory_mib 16384 -> 8192; labels gpu,ssd -> ssd; MAC probe: killed after 10 s``: the left side of an arrow is the
registered value. So the text itself keeps it, and a host that returns to its registered values has no drift any more.
"""

import re
from collections.abc import Mapping, Sequence

from controller.domain.host_facts import DRIFTING, Drift

MAX_CHARS = 1024
_ITEM = re.compile(rf"({'|'.join(fact.name for fact in DRIFTING)}) (\S+) -> (\S+)")
_NOTHING = "-"  # stands for an empty value; no fact has it as its value


def drift(text: str, before: Mapping[str, str], after: Mapping[str, str], notes: Sequence[str] = ()) -> str:
    """The new text of a host's drift; ``text`` is the old one.

    ``before`` and ``after``: the drifting facts before and after this heartbeat, by name. ``notes``: what else is wrong
    with the host now.
    """
    registered = {**before, **registered_by(text)}
    items = [
        f"{fact.name} {registered[fact.name] or _NOTHING} -> {after[fact.name] or _NOTHING}"
        for fact in DRIFTING
        if _is_drift(fact.drift, registered[fact.name], after[fact.name])
    ]
    return "; ".join([*items, *notes])[:MAX_CHARS]


def registered_by(text: str) -> dict[str, str]:
    """The registered values of the facts that have drifted, as the text keeps them."""
    found = [_ITEM.fullmatch(item) for item in text.split("; ")]
    return {m[1]: "" if m[2] == _NOTHING else m[2] for m in found if m}


def accepted(text: str) -> str:
    """What is left of the text when an operator has accepted the host as it is now."""
    return "; ".join(item for item in text.split("; ") if not _ITEM.fullmatch(item))


def _is_drift(kind: Drift, registered: str, now: str) -> bool:
    if kind is Drift.SMALLER:
        return int(now) < int(registered)
    if kind is Drift.LOST:
        return not set(filter(None, registered.split(","))) <= set(now.split(","))
    return now != registered
