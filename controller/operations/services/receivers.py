"""Which versions of the messages the receivers read: what is newer is not sent to them."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from controller.db.bulk import among
from controller.db.models import Cloud, Host, Service
from controller.domain.messages import AgentCommand, Message
from controller.domain.release import FIRST_SEEN, OLDEST_VERSION, oldest_that_speaks, parts, speaks

# A service that has not renewed its row for so long is taken for gone.
GONE_AFTER_S = 60


def readable(session: Session, messages: Sequence[Message], now: datetime) -> list[Message]:
    """Those that their receivers can read, as far as the rows know. Doorbells and commands are told again by what the
    rows say, so one that is held back is not lost. A reader ignores fields that it does not know: where it must not,
    what services are sent is put in words of the oldest version (``for_oldest``)."""
    worded = {m: w for m in messages for w in [m.for_oldest()] if w != (m,)}
    newer = {m for m in messages if m.SINCE > OLDEST_VERSION and not m.ASKED_FOR}
    if not newer and not worded:
        return list(messages)
    hosts = {host for m in newer if (host := _host(m))}
    query = select(Host.id, Host.speaks).where(among(Host.id, hosts))
    by_host = {row.id: row.speaks for row in session.execute(query)} if hosts else {}
    others = services_read(session, now) if worded or any(not _host(m) for m in newer) else OLDEST_VERSION
    return [
        said
        for m in messages
        for said in (worded.get(m, (m,)) if others <= OLDEST_VERSION else (m,))
        if m not in newer or (by_host.get(host, OLDEST_VERSION) if (host := _host(m)) else others) >= m.SINCE
    ]


def services_read(session: Session, now: datetime) -> int:
    """The newest version that every service of the cloud can read.

    Services of a release before FIRST_SEEN write no row: that none runs any more an operator says
    (``services.require``).
    """
    oldest = session.scalar(select(Cloud.oldest_release)) or oldest_that_speaks(OLDEST_VERSION)
    if parts(oldest) < parts(FIRST_SEEN):
        return speaks(oldest)
    lowest = session.scalar(
        select(func.min(Service.speaks)).where(Service.seen_at >= now - timedelta(seconds=GONE_AFTER_S))
    )
    return speaks(oldest) if lowest is None else lowest


def _host(message: Message) -> str:
    """The host whose agent a message is for; empty: it is for a service."""
    return message.host if isinstance(message, AgentCommand) else ""
