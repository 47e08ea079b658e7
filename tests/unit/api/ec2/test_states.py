"""Every state of the domain has its words in EC2."""

from datetime import UTC, datetime

import pytest

from api.ec2.states import EC2_STATE, state, state_reason, status_checks, transition_reason
from controller.domain.states import State

NOW = datetime(2026, 11, 21, 20, 7, 9, 500000, tzinfo=UTC)


def test_every_state_has_one() -> None:
    assert EC2_STATE.keys() == set(State)


@pytest.mark.parametrize("name", State)
def test_only_running_states_have_status_checks(name: State) -> None:
    status, reachability = status_checks(name)
    runs = state(name)["Name"] == "running"
    assert (status != "not-applicable") == bool(reachability) == runs


def test_an_error_always_has_a_reason() -> None:
    assert state_reason(State.ERROR, "", "") == {
        "Code": "Server.InternalError",
        "Message": "Server.InternalError: it failed",
    }
    assert state_reason(State.ERROR, "Server.X", "why") == {"Code": "Server.X", "Message": "Server.X: why"}


def test_running_states_have_no_reason() -> None:
    assert state_reason(State.ACTIVE, "", "") is None
    assert transition_reason(State.ACTIVE, "", "", NOW) == ""


@pytest.mark.parametrize("name", [State.STOPPING, State.STOPPED, State.DELETING, State.DELETED])
def test_state_ended_by_user_names_its_time(name: State) -> None:
    assert (state_reason(name, "", "") or {})["Code"] == "Client.UserInitiatedShutdown"
    assert transition_reason(name, "", "", NOW) == "User initiated (2026-11-21 20:07:09 GMT)"
