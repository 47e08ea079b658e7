"""Messages on the wire: one golden file each, strict about what is there, lenient about what is new."""

import json
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.errors import NewerMessage, PoisonMessage
from controller.domain.messages import (
    MESSAGES,
)
from controller.domain.wire import VERSION, decode, encode
from tests.labs.message_examples import EXAMPLES

GOLDEN = Path(__file__).parents[2] / "golden" / "messages"


def test_every_message_has_an_example() -> None:
    assert EXAMPLES.keys() == MESSAGES.keys()


@pytest.mark.parametrize("kind", sorted(EXAMPLES))
def test_golden(kind: str) -> None:
    """What an older release wrote is read for ever; what this one writes changes only by additions."""
    golden = json.loads((GOLDEN / f"{kind}.json").read_text())
    assert decode(json.dumps(golden)) == EXAMPLES[kind]
    assert json.loads(encode(EXAMPLES[kind])) == golden


@pytest.mark.parametrize("file", sorted((GOLDEN / "older").iterdir()), ids=lambda f: str(f.stem))
def test_what_older_releases_wrote_is_still_read(file: Path) -> None:
    """Fields that were added since have their defaults; nothing else has changed."""
    golden = json.loads(file.read_text())
    document = json.loads(encode(decode(json.dumps(golden))))
    added = [f for f in fields(MESSAGES[golden["kind"]]) if f.name not in golden]
    assert {f.name: document.pop(f.name) for f in added} == {f.name: json.loads(json.dumps(f.default)) for f in added}
    assert document.pop("version") == VERSION
    assert _as_in(golden, document) == {k: v for k, v in golden.items() if k != "version"}


def _as_in(old: object, new: object) -> object:
    """``new`` without the fields that the objects of ``old`` do not have."""
    if isinstance(old, dict) and isinstance(new, dict):
        return {k: _as_in(old[k], v) for k, v in new.items() if k in old}
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [_as_in(o, n) for o, n in zip(old, new, strict=True)]
    return new


@pytest.mark.parametrize("kind", sorted(EXAMPLES))
def test_a_newer_releases_fields_are_ignored(kind: str) -> None:
    document = json.loads(encode(EXAMPLES[kind]))
    document["from_the_future"] = {"a": [1]}
    document["version"] = 99
    assert decode(json.dumps(document)) == EXAMPLES[kind]


@pytest.mark.parametrize(
    "body",
    [
        "",
        "nonsense",
        "[]",
        "null",
        '{"kind":"Nothing"}',
        '{"kind":["x"]}',
        '{"kind":"ScheduleReservation"}',
        '{"kind":"ScheduleReservation","reservation_id":7}',
        '{"kind":"GuestsChanged","host":"h","reports":[{"instance_id":"i","generation":"1","event":"RUNNING"}]}',
        '{"kind":"GuestsChanged","host":"h","reports":{}}',
        '{"kind":"ReconcileGuests","host":"h","guests":[7]}',
        "[" * 100000,
    ],
)
def test_what_cannot_be_read_is_poison(body: str) -> None:
    with pytest.raises(PoisonMessage):
        decode(body)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    with pytest.raises(PoisonMessage):
        decode(text)


@pytest.mark.parametrize("kind", sorted(EXAMPLES))
def test_a_newer_releases_words_are_kept(kind: str) -> None:
    """Whatever enum is in a message: an unknown word arrives and leaves as it is, and the rest with it."""
    document = json.loads(encode(EXAMPLES[kind]))

    def replaced(value: object) -> object:
        if isinstance(value, dict):
            return {k: "LATER" if k in ("desired", "event", "power") else replaced(v) for k, v in value.items()}
        return [replaced(v) for v in value] if isinstance(value, list) else value

    later = replaced(document)
    assert json.loads(encode(decode(json.dumps(later)))) == later


def test_newer_kind_differs_from_nonsense() -> None:
    with pytest.raises(NewerMessage, match="A newer release sent MoveGuests"):
        decode('{"kind":"MoveGuests","version":3}')
    for version in (VERSION, 0, -1, "3", None, True, [3]):
        with pytest.raises(PoisonMessage) as refused:
            decode(json.dumps({"kind": "MoveGuests", "version": version}))
        assert type(refused.value) is PoisonMessage


_ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)


@given(st.data())
def test_whatever_is_changed_or_added_anywhere_is_read_or_refused(data: st.DataObject) -> None:
    """A message with one value replaced and one field added, at any depth: never another error, and what is read is
    written again as it was read."""
    document = json.loads(encode(data.draw(st.sampled_from(list(EXAMPLES.values())))))
    places: list[tuple[dict[str, object], str]] = []

    def walk(value: object) -> None:
        if isinstance(value, dict):
            places.extend((value, key) for key in value)
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    walk(document)
    holder, key = data.draw(st.sampled_from(places))
    holder[key] = data.draw(_ANY_JSON)
    data.draw(st.sampled_from(places))[0][data.draw(st.text(max_size=10))] = data.draw(_ANY_JSON)
    try:
        message = decode(json.dumps(document))
    except PoisonMessage:
        return
    assert decode(encode(message)) == message


def test_each_host_has_a_queue() -> None:
    assert EXAMPLES["ReconcileGuests"].queue == "compute.h1"
    assert EXAMPLES["GuestsChanged"].queue == "events"
    assert EXAMPLES["HostReported"].queue == "heartbeats"
    assert EXAMPLES["HostReported"].FALLBACK == "events"  # where a controller of 0.1 reads
