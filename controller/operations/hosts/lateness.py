"""Which heartbeat of a host is its newest, which came late, and whose clock is wrong."""

from collections.abc import Iterable
from datetime import datetime, timedelta

import structlog

from controller.db.models import Host
from controller.domain.messages import HostReported
from controller.operations.cloud import Transaction

log = structlog.get_logger(__name__)

# The age of a heartbeat counts up to this.
_MOST_LATE = timedelta(minutes=10)


def newest_of(messages: Iterable[HostReported]) -> dict[str, HostReported]:
    """The heartbeat of each host with the highest number; of those without a number, the last."""
    newest: dict[str, HostReported] = {}
    for message in messages:
        if message.host not in newest or message.sequence >= newest[message.host].sequence:
            newest[message.host] = message
    return newest


def lateness(tx: Transaction, message: HostReported) -> timedelta:
    """How long ago a heartbeat was written, by its host's clock: it may have waited in the queue. If that clock is far
    behind, what its host shows is ignored for ``_MOST_LATE`` only."""
    try:
        age = tx.now - datetime.fromisoformat(message.at)
    except (ValueError, TypeError):
        return timedelta()
    return min(max(age, timedelta()), _MOST_LATE)


def is_late(host: Host, message: HostReported) -> bool:
    """Whether a heartbeat is out of date: its number is not higher than that of the last one taken.

    An agent numbers its heartbeats from the milliseconds of its clock on, so they rise over a restart, too. They
    fall only if the host's clock was set back before a restart of its agent. Such heartbeats look like late ones, but
    no higher ones come any more. So once the host is down they are taken, from the second one on: the first becomes the
    last number taken (``set_aside``), as a single straggler does not show that the host is alive. Meanwhile the host's
    guests are UNKNOWN, and run on. A straggler from before the clock was set back has the highest number of all: it is
    taken, and all of this happens once more.

    The host being down decides, not ``last_seen_at``: after a pause of all controllers every host was last seen long
    ago and the queue holds old heartbeats, while a host is marked down only by a controller that has listened for as
    long as the host was silent.
    """
    return 0 < message.sequence <= host.heartbeat_sequence


def set_aside(host: Host, message: HostReported) -> None:
    """Do not take a late heartbeat; if the host is down, its number becomes the last one taken."""
    last = host.heartbeat_sequence
    if message.sequence == last:
        return  # delivered twice
    log.info("late heartbeat not taken", host=host.id, sequence=message.sequence, last=last, up=host.up)
    if not host.up:
        host.heartbeat_sequence = message.sequence


def warn_of_clocks(tx: Transaction, messages: Iterable[HostReported]) -> None:
    """Log that hosts' clocks differ from this one: one line for all of them, as this clock may be the wrong one."""
    skews_s: dict[str, int] = {}
    for message in messages:
        try:
            skew_s = (datetime.fromisoformat(message.at) - tx.now).total_seconds()
        except (ValueError, TypeError):
            log.warning("heartbeat without a readable time", host=message.host, at=message.at[:40])
            continue
        if abs(skew_s) > tx.settings.controller.clock_skew_warn_s:
            skews_s[message.host] = round(skew_s)
    if skews_s:
        host = max(skews_s, key=lambda h: abs(skews_s[h]))
        log.warning(
            "a host's clock differs from ours, or its heartbeat was late",
            host=host,
            seconds=skews_s[host],
            hosts=len(skews_s),
        )
