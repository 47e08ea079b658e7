"""Heartbeats' table as a whole: every state and every way in which a host can show a guest."""

from controller.domain.sightings import AT_ONCE, SIGHT_REFUSALS, SIGHTINGS, Sight
from controller.domain.states import Event, State, allows


def test_every_state_considers_every_sight() -> None:
    assert SIGHTINGS.keys() | SIGHT_REFUSALS.keys() == {(state, sight) for state in State for sight in Sight}
    assert not SIGHTINGS.keys() & SIGHT_REFUSALS.keys()
    assert all(SIGHT_REFUSALS.values())


def test_what_a_sight_means_may_happen() -> None:
    assert [pair for pair, event in SIGHTINGS.items() if not allows(pair[0], event)] == []
    assert SIGHTINGS.keys() >= AT_ONCE


def test_no_sight_removes_or_fails_a_guest() -> None:
    assert set(SIGHTINGS.values()) == {Event.RUNNING, Event.SHUT_OFF}
