"""Neighbouring releases on the bus: what 0.1 does not know is cut away, and the next release says unheard-of things."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from controller.domain.messages import Message
from controller.domain.wire import encode

_MESSAGES_OF_0_1 = Path(__file__).parents[1] / "unit" / "golden" / "releases" / "0.1" / "messages"
_SHARE_UNHEARD_OF = 0.1


class Release:
    """This release: everything goes over the bus as it is."""

    calm = False  # once it is, nothing unheard of is said any more

    def queue(self, message: Message) -> str:
        """Where a message is sent."""
        return message.queue

    def written(self, message: Message) -> str | None:
        """What is sent of a message; None: nothing."""
        return encode(message)

    def read(self, body: str) -> str:
        """What is seen of a message."""
        return body


class OldRelease(Release):
    """0.1: it neither writes nor sees fields, and never sends kinds, that came later."""

    def queue(self, message: Message) -> str:
        return message.FALLBACK or message.queue

    def written(self, message: Message) -> str | None:
        known = _known_to_0_1().get(message.KIND)
        return None if known is None else json.dumps({**_cut(json.loads(encode(message)), known), "version": 1})

    def read(self, body: str) -> str:
        try:
            document = json.loads(body)
        except ValueError:
            return body
        known = _known_to_0_1().get(document.get("kind", "")) if isinstance(document, dict) else None
        return body if known is None else json.dumps(_cut(document, known))


class NextRelease(Release):
    """The one after this: more fields, and now and then a word that this release does not know."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def written(self, message: Message) -> str | None:
        document = json.loads(encode(message))
        document["version"] += 1
        document["moon"] = {"phase": "new"}
        parts = document.get("guests") or document.get("reports") or []
        if parts and not self.calm and self._random.random() < _SHARE_UNHEARD_OF:
            part = self._random.choice(parts)
            if "power" in part:
                part["power"] = "SUSPENDED"
            elif "event" in part:
                parts.append({**part, "event": "SUSPENDED"})
        return json.dumps(document)


@cache
def _known_to_0_1() -> Mapping[str, Any]:
    found = (json.loads(file.read_text()) for file in sorted(_MESSAGES_OF_0_1.glob("*.json")))
    return {document["kind"]: document for document in found}


def _cut(value: Any, known: Any) -> Any:
    """The part of a document that has its like in another."""
    if isinstance(value, dict) and isinstance(known, dict):
        return {name: _cut(part, known[name]) for name, part in value.items() if name in known}
    if isinstance(value, list) and isinstance(known, list) and known:
        return [_cut(part, known[0]) for part in value]
    return value
