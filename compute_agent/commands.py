"""What an agent does with each command: one handler for each class of ``AgentCommand``.

A new command is a class in ``controller.domain.messages.commands`` and a handler here.
"""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog

from compute_agent.driver import Driver
from compute_agent.fence import Fence
from compute_agent.journal.journal import Journal
from compute_agent.observed_state import observe_host
from compute_agent.unreported import Unreported
from controller.domain.errors import CloudError, PoisonMessage
from controller.domain.messages import (
    AgentCommand,
    Answer,
    ConsoleRead,
    GuestSpec,
    HostAccepted,
    HostObservation,
    Message,
    ObserveHost,
    ReadConsole,
    ReconcileGuests,
    RemoveImages,
    RemoveTaps,
)

log = structlog.get_logger(__name__)

_CONSOLE_MAX_BYTES = 1024 * 1024


@dataclass(frozen=True)
class CommandContext:
    """What the commands of one host act on."""

    host: str
    driver: Driver
    journal: Journal
    fence: Fence
    unreported: Unreported


@dataclass(frozen=True)
class Handled:
    """What follows from a command: the ``answer`` of a call, guests that are to be worked on, reports to be sent."""

    answer: Answer | None = None
    work: tuple[GuestSpec, ...] = ()
    reports: bool = False


C = TypeVar("C", bound=AgentCommand)
Handler = Callable[[CommandContext, Any], Handled]
_HANDLERS: dict[type[AgentCommand], Handler] = {}


def handlers() -> Mapping[type[AgentCommand], Handler]:
    """The handler of each class of commands."""
    return dict(_HANDLERS)


def handle(context: CommandContext, message: Message) -> Handled:
    """Carry out a command, or record what it asks for: that is durable when this returns, the work comes later.

    Raises:
        Unavailable: the journal cannot be written; the message is to be kept. PoisonMessage: not for an agent.
    """
    handler = _HANDLERS.get(type(message)) if isinstance(message, AgentCommand) else None
    if handler is None:
        raise PoisonMessage(reason=f"{message.KIND} is not for an agent")
    return handler(context, message)


def is_known(host: str, spec: GuestSpec) -> bool:
    """Whether this release knows the state that is asked for; if not, the guest stays as it is."""
    if not spec.desired.known:
        log.warning("desired state of a newer release", host=host, instance=spec.instance_id, desired=spec.desired)
    return spec.desired.known


def _handles(command: type[C]) -> Callable[[Callable[[CommandContext, C], Handled]], Handler]:
    def register(handler: Callable[[CommandContext, C], Handled]) -> Handler:
        _HANDLERS[command] = handler
        return handler

    return register


@_handles(ReconcileGuests)
def _reconcile_guests(context: CommandContext, command: ReconcileGuests) -> Handled:
    if reason := context.fence.refusal(command):
        log.warning("command dropped", host=context.host, guests=len(command.guests), reason=reason)
        return Handled()
    known = [spec for spec in command.guests if is_known(context.host, spec)]
    outdated = context.journal.record(context.host, known, command.expires_at)
    context.unreported.add_outdated(outdated)
    late = {(request.instance_id, request.generation) for request in outdated}
    # Also without work: what was done before is reported again.
    return Handled(work=tuple(s for s in known if (s.instance_id, s.generation) not in late), reports=True)


@_handles(HostAccepted)
def _host_accepted(context: CommandContext, command: HostAccepted) -> Handled:
    context.fence.accept(command)
    return Handled(work=tuple(context.journal.pending(context.host)), reports=True)


@_handles(ReadConsole)
def _read_console(context: CommandContext, command: ReadConsole) -> Handled:
    try:
        limit = min(max(command.max_bytes, 0), _CONSOLE_MAX_BYTES)
        data = context.driver.console(command.instance_id, limit)
    except (CloudError, OSError, ValueError) as error:
        return Handled(ConsoleRead(command.instance_id, "", str(error)))
    return Handled(ConsoleRead(command.instance_id, base64.b64encode(data).decode()))


@_handles(ObserveHost)
def _observe_host(context: CommandContext, _: ObserveHost) -> Handled:
    return Handled(observe_host(context.host, context.driver, context.journal))


@_handles(RemoveTaps)
def _remove_taps(context: CommandContext, command: RemoveTaps) -> Handled:
    try:
        context.driver.remove_taps(command.taps)
    except CloudError as error:
        return Handled(HostObservation(context.host, error=str(error)))
    return Handled(observe_host(context.host, context.driver, context.journal))


@_handles(RemoveImages)
def _remove_images(context: CommandContext, command: RemoveImages) -> Handled:
    context.driver.remove_images(command.images)
    return Handled()
