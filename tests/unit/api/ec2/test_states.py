"""Every state of the domain has its words in EC2."""

import pytest

from api.ec2.states import EC2_STATE, state, state_reason, status_checks
from controller.domain.states import State


def test_every_state_has_one() -> None:
    assert EC2_STATE.keys() == set(State)


@pytest.mark.parametrize("name", State)
def test_only_what_runs_is_checked(name: State) -> None:
    status, reachability = status_checks(name)
    runs = state(name)["Name"] == "running"
    assert (status != "not-applicable") == bool(reachability) == runs


def test_an_error_always_has_a_reason() -> None:
    assert state_reason(State.ERROR, "", "") == {
        "Code": "Server.InternalError",
        "Message": "Server.InternalError: it failed",
    }
    assert state_reason(State.ERROR, "Server.X", "why") == {"Code": "Server.X", "Message": "Server.X: why"}


def test_what_runs_has_none() -> None:
    assert state_reason(State.ACTIVE, "", "") is None
    assert (state_reason(State.DELETED, "", "") or {})["Code"] == "Client.UserInitiatedShutdown"
