"""A whole site falls silent and comes back: no guest may be taken for anything but out of contact."""

import signal
import time
from collections import Counter
from collections.abc import Sequence

from sqlalchemy import func, select

from controller.db.models import Host, Instance, InstanceEvent
from controller.domain.states import Event, State
from controller.operations.cloud import Transaction
from tests.bench.deployment import Deployment, states_of, wait_until

_DEADLINE_S = 600
_POLL_S = 0.5
_IS_RUNNING = select(Instance.id).where(Instance.state == State.ACTIVE)


def lose_contact(site: Deployment, count: int) -> dict[str, object]:
    """Stop the process of all agents until every host is down and every instance UNKNOWN, then let it go on."""
    agents = site.processes["compute"]
    strange: Counter[str] = Counter()
    before, epochs = site.cloud.read(_verdicts), site.cloud.read(_epochs)

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
    told = site.cloud.read(_verdicts)
    told.subtract(before)
    force_removed = dict(epochs.items() ^ site.cloud.read(_epochs).items())
    wrong = sum(told[i, event] != 1 for i in site.cloud.read(_running) for event in (Event.HOST_LOST, Event.RUNNING))
    return {
        "contact_lost_s": round(lost_s, 1),
        "contact_back_s": round(back_s, 1),
        "false_verdicts": sum(strange.values()) + wrong + len(force_removed),
    }


def _verdicts(tx: Transaction) -> Counter[tuple[str, str]]:
    """How often each instance was taken for out of contact, and how often for running."""
    query = select(InstanceEvent.instance_id, InstanceEvent.event, func.count()).where(
        InstanceEvent.event.in_((Event.HOST_LOST, Event.RUNNING)), InstanceEvent.instance_id.in_(_IS_RUNNING)
    )
    return Counter(
        {
            (i, str(event)): int(n)
            for i, event, n in tx.session.execute(query.group_by(InstanceEvent.instance_id, InstanceEvent.event))
        }
    )


def _epochs(tx: Transaction) -> dict[str, int]:
    """Each host's epoch: one that was given up, or registered again, has another."""
    return {str(host): int(epoch) for host, epoch in tx.session.execute(select(Host.id, Host.epoch))}


def _running(tx: Transaction) -> Sequence[str]:
    return tx.session.scalars(_IS_RUNNING).all()


def _down(tx: Transaction) -> int:
    return tx.session.scalar(select(func.count()).where(Host.up.is_(False))) or 0
