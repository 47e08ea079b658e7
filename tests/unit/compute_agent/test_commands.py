"""Every command has a handler, and a call is answered with what its class names."""

import base64

import pytest

from compute_agent.agent import Agent
from compute_agent.commands import Handled, handlers
from controller.domain.errors import PoisonMessage
from controller.domain.guests import Desired
from controller.domain.messages import (
    MESSAGES,
    AgentCommand,
    ConsoleRead,
    GuestSpec,
    ObserveHost,
    PrepareNetworks,
    ReadConsole,
    ReconcileGuests,
    RemoveTaps,
)
from tests.labs.agent import HOST, guest, instance, work_all

COMMANDS = {m for m in MESSAGES.values() if issubclass(m, AgentCommand)}
CALLS = (ReadConsole(HOST, instance(1)), ObserveHost(HOST), RemoveTaps(HOST, ()))


def test_every_command_has_a_handler() -> None:
    assert handlers().keys() == COMMANDS


def test_calls_are_answered(agent: Agent) -> None:
    assert {type(c) for c in CALLS} == {c for c in COMMANDS if c.ANSWER}
    assert [type(agent.handle(c).answer) for c in CALLS] == [c.ANSWER for c in CALLS]


def test_commands_go_to_the_queue_of_their_host() -> None:
    assert {c.queue for c in CALLS} == {f"compute.{HOST}"}


def order(agent: Agent, *specs: GuestSpec) -> Handled:
    return agent.handle(ReconcileGuests(HOST, specs))


def test_the_console_is_read(agent: Agent) -> None:
    order(agent, guest())
    work_all(agent)
    answer = agent.handle(ReadConsole(HOST, instance(1), 9)).answer
    assert isinstance(answer, ConsoleRead)
    assert base64.b64decode(answer.data) == b"10.0.0.1\n"
    assert agent.handle(ReadConsole(HOST, instance(2))).answer == ConsoleRead(instance(2), "")


def test_message_that_is_no_command_is_refused(agent: Agent) -> None:
    with pytest.raises(PoisonMessage):
        agent.handle(PrepareNetworks(()))


def test_outdated_request_is_no_work(agent: Agent) -> None:
    """It does not turn a removal that waits for a thread into a boot that waits for a slot."""
    assert order(agent, guest(1, 2, Desired.ABSENT)).work == (guest(1, 2, Desired.ABSENT),)
    assert order(agent, guest(1), guest(2)).work == (guest(2),)
    assert order(agent, guest(1, 2, Desired.ABSENT)).work == (guest(1, 2, Desired.ABSENT),)
