"""The tables as a whole, not their rows."""

import pytest

from controller.domain.errors import IncorrectInstanceState
from controller.domain.states import (
    DEADLINE_S,
    REFUSALS,
    REPORTS,
    RUNS_AFTER_BOOT,
    TERMINAL,
    TO_BE_REMOVED,
    TRAITS,
    TRANSITIONS,
    Claim,
    Event,
    State,
    allows,
    next_state,
    states_that_allow,
)


def test_every_state_can_reach_deleted() -> None:
    reachable = set(TERMINAL)
    while more := {s for (s, _), t in TRANSITIONS.items() if t in reachable} - reachable:
        reachable |= more
    assert reachable == set(State)


def test_every_state_can_be_reached_from_requested() -> None:
    reached = {State.REQUESTED}
    while more := {t for (s, _), t in TRANSITIONS.items() if s in reached} - reached:
        reached |= more
    assert reached == set(State)


def test_every_state_can_be_deleted() -> None:
    assert set(states_that_allow(Event.DELETE)) == set(State)


def test_what_has_a_deadline_can_expire_and_nothing_else() -> None:
    assert set(states_that_allow(Event.EXPIRED)) == set(DEADLINE_S)


def test_deadlines_lead_out_of_waiting() -> None:
    """A delete alone waits on: it ends when its host is back."""
    for state in set(DEADLINE_S) - {State.DELETING}:
        assert TRANSITIONS[state, Event.EXPIRED] not in DEADLINE_S


def test_nothing_leaves_deleted() -> None:
    assert {t for (s, _), t in TRANSITIONS.items() if s in TERMINAL} == set(TERMINAL)


def test_lost_contact_never_stops_a_guest() -> None:
    assert {t for (_, e), t in TRANSITIONS.items() if e is Event.HOST_LOST} == {State.UNKNOWN}


def test_every_instance_of_a_host_can_be_force_removed_with_it() -> None:
    assert set(states_that_allow(Event.HOST_GONE)) == set(State) - {State.REQUESTED, State.DELETED}
    assert {t for (_, e), t in TRANSITIONS.items() if e is Event.HOST_GONE} == {State.ERROR, State.DELETED}


def test_an_event_without_a_row_is_refused_by_name() -> None:
    assert not allows(State.STOPPED, Event.REBOOT)
    with pytest.raises(IncorrectInstanceState, match="STOPPED does not allow REBOOT"):
        next_state(State.STOPPED, Event.REBOOT)


def test_every_state_considers_every_report() -> None:
    pairs = {(state, report) for state in State for report in REPORTS}
    assert {p for p in TRANSITIONS if p[1] in REPORTS} | REFUSALS.keys() == pairs
    assert not TRANSITIONS.keys() & REFUSALS.keys()
    assert all(REFUSALS.values())


def test_a_guest_that_goes_off_is_never_removed_for_it() -> None:
    assert {t for (_, e), t in TRANSITIONS.items() if e is Event.SHUT_OFF} == {State.STOPPED}


def test_an_accepted_delete_ends_only_in_deleted() -> None:
    assert {t for (s, _), t in TRANSITIONS.items() if s is State.DELETING} == {State.DELETING, State.DELETED}


def test_every_state_has_every_trait() -> None:
    assert TRAITS.keys() == set(State)
    for state, traits in TRAITS.items():
        assert len(traits.ec2) == len(traits.opennebula) == 2, state
        assert bool(traits.overdue) == (traits.deadline_s is not None), state
        assert traits.ec2_check in ("ok", "initializing", "impaired", "not-applicable"), state
        assert (traits.ec2_check != "not-applicable") == (traits.ec2[1] == "running"), state


def test_a_state_with_a_claim_has_a_desired_state() -> None:
    for state, traits in TRAITS.items():
        if traits.claim is Claim.NONE:
            assert not traits.served, state
        else:
            assert (traits.desired is None) == (state is State.UNKNOWN), state


def test_what_is_derived_from_several_traits() -> None:
    assert {State.DELETING, State.ERROR} == TO_BE_REMOVED
    assert {
        State.BUILDING,
        State.ACTIVE,
        State.STARTING,
        State.REBOOTING,
        State.UNKNOWN,
    } == RUNS_AFTER_BOOT


def test_one_opennebula_state_for_each_ec2_state() -> None:
    """A client of either door can tell apart what a client of the other one can, but for a reboot and a failure."""
    ec2_of: dict[tuple[int, int], set[str]] = {}
    for traits in TRAITS.values():
        ec2_of.setdefault(traits.opennebula, set()).add(traits.ec2[1])
    assert {n: names for n, names in ec2_of.items() if len(names) > 1} == {}
