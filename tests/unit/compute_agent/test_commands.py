"""Every command has a handler, and a call is answered with what its class names."""

from compute_agent.agent import Agent
from compute_agent.commands import handlers
from controller.domain.messages import MESSAGES, AgentCommand, ObserveHost, ReadConsole, RemoveTaps
from tests.labs.agent import HOST, instance

COMMANDS = {m for m in MESSAGES.values() if issubclass(m, AgentCommand)}
CALLS = (ReadConsole(HOST, instance(1)), ObserveHost(HOST), RemoveTaps(HOST, ()))


def test_every_command_has_a_handler() -> None:
    assert handlers().keys() == COMMANDS


def test_calls_are_answered(agent: Agent) -> None:
    assert {type(c) for c in CALLS} == {c for c in COMMANDS if c.ANSWER}
    assert [type(agent.handle(c).answer) for c in CALLS] == [c.ANSWER for c in CALLS]


def test_commands_go_to_the_queue_of_their_host() -> None:
    assert {c.queue for c in CALLS} == {f"compute.{HOST}"}
