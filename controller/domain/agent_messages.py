"""What agents' messages may hold: nothing that no column takes, nor more than any host has.

One host's words are looked at before they are put together with those of others.
"""

import re
from collections.abc import Sequence
from typing import TypeAlias

from controller.domain.errors import InvalidParameter, PoisonMessage
from controller.domain.host_facts import check_facts
from controller.domain.messages import UNKNOWN_GENERATION, GuestsChanged, HostObservation, HostReported, Message

# Of one host: as many as a network has addresses.
MAX_GUESTS = 65_536
# An agent sends a thousand.
MAX_REPORTS = 10_000
# What an agent's journal and our columns can keep, and one more.
_MOST_GENERATION = 2**63 - 2
_INSTANCE_ID = re.compile(r"[!-~]{1,24}", re.ASCII)

_FromHost: TypeAlias = HostReported | GuestsChanged | HostObservation


def check(message: Message) -> None:
    """Refuse what no agent says, were it well; other messages are taken as they are.

    Raises:
        PoisonMessage
    """
    match message:
        case HostReported():
            _check_heartbeat(message)
        case HostObservation():
            seen = [(s.instance_id, s.generation) for s in message.guests]
            seen += [(s.instance_id, s.generation) for s in message.disks]
            _check_ids(message, [*(instance_id for instance_id, _ in seen), *message.pending])
            _check_generations(message, [generation for _, generation in seen])
        case GuestsChanged():
            reports, outdated = message.reports, message.outdated
            _require(max(len(reports), len(outdated)) <= MAX_REPORTS, message, "too many reports")
            _check_ids(message, [r.instance_id for r in reports] + [o.instance_id for o in outdated])
            _check_generations(message, [r.generation for r in reports])
            _check_generations(message, [n for o in outdated for n in (o.generation, o.newest)])


def _check_heartbeat(message: HostReported) -> None:
    try:
        check_facts(message)
    except InvalidParameter as error:
        raise PoisonMessage(reason=f"heartbeat of {message.host[:63]!r}: {error}") from error
    _require(max(len(message.guests), len(message.pending)) <= MAX_GUESTS, message, "too many guests")
    _check_ids(message, [g.instance_id for g in message.guests])
    _check_ids(message, message.pending)
    _check_generations(message, [g.generation for g in message.guests])


def _check_ids(message: _FromHost, ids: Sequence[str]) -> None:
    wrong = next((i for i in ids if not _INSTANCE_ID.fullmatch(i)), None)
    _require(wrong is None, message, f"{(wrong or '')[:40]!r} is no instance")


def _check_generations(message: _FromHost, generations: Sequence[int]) -> None:
    wrong = next((g for g in generations if not UNKNOWN_GENERATION <= g <= _MOST_GENERATION), UNKNOWN_GENERATION)
    _require(wrong == UNKNOWN_GENERATION, message, f"{wrong} is no generation")


def _require(true: bool, message: _FromHost, reason: str) -> None:
    if not true:
        raise PoisonMessage(reason=f"{message.KIND} of {message.host[:63]!r}: {reason}")
