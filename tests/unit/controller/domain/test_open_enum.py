"""Words that only a newer release knows are kept, equal themselves, and are none of the members."""

import copy
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.guests import Desired, Power
from controller.domain.hosts import HostMode
from controller.domain.images import ImageState
from controller.domain.instances import ShutdownBehavior
from controller.domain.networks import NetworkKind
from controller.domain.open_enum import OpenEnum
from controller.domain.placement_groups import GroupStrategy
from controller.domain.states import Event, State, allows, states_that_allow

OPEN: list[type[OpenEnum]] = [
    State,
    Event,
    Desired,
    Power,
    HostMode,
    NetworkKind,
    ImageState,
    GroupStrategy,
    ShutdownBehavior,
]


@pytest.mark.parametrize("cls", OPEN)
def test_an_unknown_word_is_kept(cls: type[OpenEnum]) -> None:
    word = cls("LATER")
    assert (str(word), f"{word}", word.value, word == "LATER", word.known) == ("LATER", "LATER", "LATER", True, False)
    assert word not in list(cls)
    assert all(member.known and member != word for member in cls)
    assert {"LATER": 1}[word] == 1
    assert copy.deepcopy(word) == word
    assert isinstance(pickle.loads(pickle.dumps(word)), cls)


@pytest.mark.parametrize("cls", OPEN)
def test_a_member_is_itself(cls: type[OpenEnum]) -> None:
    for member in cls:
        assert cls(str(member)) is member
        assert copy.deepcopy(member) is member
        assert pickle.loads(pickle.dumps(member)) is member


@pytest.mark.parametrize("value", ["", "x" * 65, 7, None, ["LATER"]])
def test_what_is_no_word_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="not a valid State"):
        State(value)


@given(st.text(min_size=1, max_size=64).filter(lambda w: w not in set(State)))
def test_no_event_moves_an_unknown_state(word: str) -> None:
    state = State(word)
    assert not any(allows(state, event) for event in Event)
    assert not any(state in states_that_allow(event) for event in Event)
    assert not any(allows(known, Event(word)) for known in State) or Event(word).known
