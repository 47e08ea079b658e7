"""The services that run, by their rows: which release each one is, and which messages it can read."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, func, select, update

from controller.db.accounts import Cloud
from controller.db.models import Host, Service
from controller.domain.errors import InUse, InvalidParameter
from controller.domain.release import FIRST_SEEN, RELEASE, parts
from controller.operations.cloud import Transaction
from controller.operations.services.receivers import GONE_AFTER_S, services_read

# A service renews its row so often.
RENEW_EVERY_S = 10
# The rows of what was killed are kept a while, to be looked at.
KEPT = timedelta(days=1)
_UNREAD_CHARS = 1000


@dataclass(frozen=True)
class Presence:
    """One service of this process, as it is written down."""

    id: str
    name: str
    machine: str
    pid: int


def renew(tx: Transaction, services: Sequence[Presence], *, version: int, unread: Iterable[str] = ()) -> None:
    """Say that these run; rows that are not there (any more) are made. Doing it twice is doing it once."""
    told = ", ".join(sorted(unread))[:_UNREAD_CHARS]
    known = set(tx.session.scalars(select(Service.id).where(Service.id.in_([s.id for s in services]))))
    tx.session.execute(update(Service).where(Service.id.in_(known)).values(seen_at=tx.now, unread=told))
    tx.session.add_all(
        Service(
            id=s.id,
            name=s.name,
            machine=s.machine,
            pid=s.pid,
            release=RELEASE,
            speaks=version,
            unread=told,
            started_at=tx.now,
            seen_at=tx.now,
        )
        for s in services
        if s.id not in known
    )


def leave(tx: Transaction, services: Sequence[Presence]) -> None:
    """These have stopped."""
    tx.session.execute(delete(Service).where(Service.id.in_([s.id for s in services])))


def forget(tx: Transaction) -> None:
    """Remove the rows of what was killed long ago."""
    tx.session.execute(delete(Service).where(Service.seen_at < tx.now - KEPT))


def list_services(tx: Transaction) -> Sequence[Service]:
    """Those that run, and those that were killed lately, by name and machine."""
    return tx.session.scalars(select(Service).order_by(Service.name, Service.machine, Service.started_at)).all()


def is_running(tx: Transaction, service: Service) -> bool:
    """Whether it was heard of a short while ago; what is dated in the future was written by a clock that is wrong."""
    return service.seen_at >= tx.now - timedelta(seconds=GONE_AFTER_S)


def running(tx: Transaction) -> list[Service]:
    """Those that run. A service of 0.1 is not among them: it writes no row."""
    return [s for s in list_services(tx) if is_running(tx, s)]


def heartbeats_taken(tx: Transaction) -> str:
    """Which heartbeats some controller has taken a short while ago, also one of 0.1; empty: none."""
    recent = tx.now - timedelta(seconds=GONE_AFTER_S)
    count, last = tx.session.execute(
        select(func.count(), func.max(Host.last_seen_at)).where(Host.last_seen_at > recent)
    ).one()
    hosts = "1 host" if count == 1 else f"{count} hosts"
    return f"a controller, which took heartbeats of {hosts}, the last one at {last:%FT%TZ}" if count else ""


def services_speak(tx: Transaction) -> int:
    """The newest version of the messages that every service of the cloud can read: see ``services_read``."""
    return services_read(tx.session, tx.now)


def require(tx: Transaction, release: str) -> None:
    """From now on no service older than ``release`` runs in this cloud, nor starts, as far as it knows this rule.

    Raises:
        InvalidParameter: it is none, or newer than this one. InUse: an older one runs, as far as that can be seen.
    """
    if parts(release) > parts(RELEASE):
        raise InvalidParameter(parameter="release", value=release, reason=f"this is {RELEASE}")
    older = [s for s in running(tx) if parts(s.release) < parts(release)]
    if older:
        names = ", ".join(f"{s.name} of {s.release} on {s.machine}" for s in older)
        raise InUse(kind="release", id=older[0].release, user=names)
    controllers = [s for s in running(tx) if s.name == "controller"]
    if parts(release) >= parts(FIRST_SEEN) and not controllers and (seen := heartbeats_taken(tx)):
        raise InUse(kind="release", id=f"before {FIRST_SEEN}", user=seen)
    tx.session.execute(update(Cloud).values(oldest_release=release))
