"""A whole site falls silent and comes back: no guest may be taken for anything but out of contact."""

import signal
import time
from collections import Counter

from sqlalchemy import func, select

from controller.db.models import Host, Step
from controller.domain.states import Event, State
from controller.operations.cloud import Transaction
from tests.bench.deployment import Deployment, states_of, wait_until

_DEADLINE_S = 600
_POLL_S = 0.5


def lose_contact(site: Deployment, count: int) -> dict[str, object]:
    """Stop the process of all agents until every host is down and every instance UNKNOWN, then let it go on."""
    agents = site.processes["compute"]
    strange: Counter[str] = Counter()
    lost_before, back_before = site.cloud.read(_verdicts)

    def all_are(state: State) -> bool:
        site.check_alive()
        states = states_of(site)
        strange.update({s: n for s, n in states.items() if s not in (State.ACTIVE, State.UNKNOWN, State.DELETED)})
        return states.get(state, 0) == count

    agents.send_signal(signal.SIGSTOP)
    begin = time.monotonic()
    try:
        wait_until(lambda: all_are(State.UNKNOWN), _DEADLINE_S, lambda: str(states_of(site)), pause_s=_POLL_S)
        lost_s = time.monotonic() - begin
    finally:
        agents.send_signal(signal.SIGCONT)
    begin = time.monotonic()
    wait_until(lambda: all_are(State.ACTIVE), _DEADLINE_S, lambda: str(states_of(site)), pause_s=_POLL_S)
    wait_until(lambda: site.cloud.read(_down) == 0, _DEADLINE_S, pause_s=_POLL_S)
    back_s = time.monotonic() - begin
    lost, back = site.cloud.read(_verdicts)
    again = abs(lost - lost_before - count) + abs(back - back_before - count)
    return {
        "contact_lost_s": round(lost_s, 1),
        "contact_back_s": round(back_s, 1),
        "false_verdicts": sum(strange.values()) + again,
    }


def _verdicts(tx: Transaction) -> tuple[int, int]:
    """How often an instance was taken for out of contact, and how often for running."""
    query = (
        select(Step.event, func.count()).where(Step.event.in_((Event.HOST_LOST, Event.RUNNING))).group_by(Step.event)
    )
    found = {str(event): int(n) for event, n in tx.session.execute(query)}
    return found.get(Event.HOST_LOST, 0), found.get(Event.RUNNING, 0)


def _down(tx: Transaction) -> int:
    return tx.session.scalar(select(func.count()).where(Host.up.is_(False))) or 0
