"""Epochs of hosts: a command for an earlier registration of a host is not carried out in a later one.

A host's epoch is raised by each registration and each removal, and outlives its row. Each command names it, and agents
obey only commands of their own epoch. An agent learns it from ``HostAccepted``, the answer to a heartbeat; after a boot
of its host it starts no guest before that.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import structlog
from sqlalchemy import exists, select

from controller.db.bulk import among
from controller.db.models import Host, RemovedHost
from controller.domain.checks import one_line
from controller.domain.errors import HostNotFound, HostRemoved
from controller.domain.messages import HostAccepted, HostReported
from controller.domain.states import RUNS_AFTER_BOOT, State
from controller.operations.cloud import Transaction
from controller.operations.services.receivers import services_read

log = structlog.get_logger(__name__)

# How far an agent may be ahead of its row: a database that was restored from a backup is behind by a few.
_MOST_AHEAD = 1_000_000
_REMARKS_CHARS = 1024
_QUEUES_AT_ONCE = 100


@dataclass(frozen=True)
class Heard:
    """A heartbeat that counts. ``epoch`` is the host's, of its row or of its removed row; 0: no such host was ever
    here. ``before``: its epoch before this heartbeat."""

    message: HostReported
    registered: bool
    epoch: int
    before: int


def new_epoch(tx: Transaction, host_id: str, shown: int) -> int:
    """The epoch of a host that is being registered: above all it had before, and above the one its agent has
    ``shown``."""
    removed = tx.session.get(RemovedHost, host_id, with_for_update=True)
    known = removed.epoch if removed is not None else 0
    return max(known, shown if shown <= known + _MOST_AHEAD else 0) + 1


def catch_up(host: Host, message: HostReported) -> None:
    """Raise the epoch of a host if commands sent before must not be carried out any more.

    - Its agent has no epoch: its journal is new, and a command that the old journal knew to be outdated may be under
      way.
    - Its row is behind its agent: the database was restored from a backup. Commands sent before that have the agent's
      epoch, so the new one is above it.
    """
    if message.epoch == 0 and message.asks:  # 0.1 never asks
        host.epoch += 1
    if message.epoch <= host.epoch:
        return
    if message.epoch > host.epoch + _MOST_AHEAD:
        log.warning("a host shows an epoch that cannot be", host=host.id, epoch=message.epoch, row=host.epoch)
        return
    log.warning("a host's row is behind its agent: restored from a backup?", host=host.id, epoch=host.epoch)
    host.epoch = message.epoch + 1


def remember_removed(tx: Transaction, host: Host) -> RemovedHost:
    """Keep what has to outlive the row of a host that is being removed: its epoch, raised by one."""
    removed = tx.session.get(RemovedHost, host.id, with_for_update=True)
    if removed is None:
        removed = RemovedHost(id=host.id)
        tx.session.add(removed)
    removed.epoch, removed.removed_at, removed.remarks = host.epoch + 1, tx.now, ""
    removed.fenced_at = removed.last_seen_at = removed.queue_removed_at = None
    return removed


def missing_host(tx: Transaction, host_id: str) -> HostNotFound:
    """The error for a host without a row: HostRemoved if it was removed, else HostNotFound."""
    removed = tx.session.get(RemovedHost, host_id)
    if removed is None:
        return HostNotFound(id=host_id)
    return HostRemoved(id=host_id, at=f"{removed.removed_at:%FT%TZ}")


def hear_removed(tx: Transaction, messages: Mapping[str, HostReported]) -> dict[str, int]:
    """Record heartbeats of removed hosts; answers with the epochs of these hosts."""
    query = select(RemovedHost).where(among(RemovedHost.id, messages)).order_by(RemovedHost.id).with_for_update()
    epochs = {}
    for removed in tx.session.scalars(query):
        message = messages[removed.id]
        if removed.epoch < message.epoch <= removed.epoch + _MOST_AHEAD:
            removed.epoch = message.epoch + 1
        removed.last_seen_at, removed.remarks = tx.now, remarks_text(message)
        epochs[removed.id] = removed.epoch
    return epochs


def with_queues(tx: Transaction) -> list[str]:
    """Removed hosts whose queues may still hold commands, and that have sent no heartbeat since."""
    registered = exists().where(Host.id == RemovedHost.id)
    mute = RemovedHost.queue_removed_at.is_(None), RemovedHost.last_seen_at.is_(None), ~registered
    return list(tx.session.scalars(select(RemovedHost.id).where(*mute).order_by(RemovedHost.id).limit(_QUEUES_AT_ONCE)))


def queue_removed(tx: Transaction, host_id: str) -> None:
    """Record that the broker holds no command for this host any more."""
    removed = tx.session.get(RemovedHost, host_id, with_for_update=True)
    if removed is not None:
        removed.queue_removed_at = tx.now


def remarks_text(message: HostReported) -> str:
    """An agent's remarks for the operator, as the host's row keeps them."""
    return "; ".join(one_line(r[:_REMARKS_CHARS]).replace(";", ",") for r in message.remarks)[:_REMARKS_CHARS]


def acceptances(
    tx: Transaction, heard: Iterable[Heard], carried: Mapping[str, Mapping[str, tuple[State, int]]]
) -> list[HostAccepted]:
    """Answers to the heartbeats that ask for one or show an old epoch; ``carried`` are the instances of each host. A
    host that is not registered runs nothing. Agents of release 0.1 neither show an epoch nor ask.
    """
    asking = [h for h in heard if h.epoch and (h.message.asks or (h.message.epoch and h.message.epoch != h.epoch))]
    old_senders = bool(asking) and services_read(tx.session, tx.now) < HostAccepted.SINCE
    return [
        HostAccepted(
            host=h.message.host,
            boot_id=h.message.boot_id,
            epoch=h.epoch,
            at=tx.now.isoformat(),
            sequence=h.message.sequence,
            runs=tuple(
                sorted(i for i, (s, _) in carried[h.message.host].items() if h.registered and s in RUNS_AFTER_BOOT)
            ),
            old_senders=old_senders,
        )
        for h in asking
    ]
