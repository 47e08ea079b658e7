"""Hosts whose heartbeats have stopped: they are marked down, their running instances UNKNOWN."""

from datetime import datetime, timedelta

from sqlalchemy import and_, or_, select, update

from controller.db.bulk import among
from controller.db.models import Host, Instance
from controller.domain.states import Event, State
from controller.operations.cloud import Transaction
from controller.operations.instances.locking import chunks
from controller.operations.instances.transitions import lock_instances, transition

# How many hosts, and how many of their instances, one transaction marks at most.
LOST_AT_ONCE = 1000


def mark_lost(tx: Transaction) -> list[str]:
    """Mark hosts that have been silent for ``host_down_after_s`` as down, and their ACTIVE instances as UNKNOWN. No
    guest is stopped for it.

    Does a bounded part of the work, so that no other transaction waits for long: call it until it returns no host. The
    caller has to have listened for as long as hosts may be silent.
    """
    before = tx.now - timedelta(seconds=tx.settings.controller.host_down_after_s)
    silent = and_(Host.up, Host.last_seen_at < before)
    names = tx.session.scalars(select(Host.id).where(silent).order_by(Host.id).limit(LOST_AT_ONCE)).all()
    # Instances of hosts that were down before are included: a late report may have made one ACTIVE again.
    carried = tx.session.execute(
        select(Instance.id, Instance.host_id)
        .join(Host, Host.id == Instance.host_id)
        .where(Instance.state == State.ACTIVE, or_(Host.up.is_(False), among(Host.id, names)))
        .order_by(Instance.host_id)
        .limit(LOST_AT_ONCE)
    ).all()
    # Instances are locked before their hosts, as in every transaction (``instances.locking``).
    instances = [i for i in lock_instances(tx, [row.id for row in carried]) if i.state is State.ACTIVE]
    wanted = sorted({*names, *(row.host_id or "" for row in carried)})
    last_seen: dict[str, datetime] = {}
    for ids in chunks(wanted):
        query = select(Host.id, Host.last_seen_at).where(among(Host.id, ids), or_(silent, Host.up.is_(False)))
        locked = query.order_by(Host.id).with_for_update(key_share=True, skip_locked=True)
        last_seen |= {row.id: row.last_seen_at for row in tx.session.execute(locked)}
    down = [name for name in names if name in last_seen]
    for ids in chunks(down):
        quiet = {"synchronize_session": False}
        lose = update(Host).where(among(Host.id, ids)).values(up=False, changed_at=tx.now)
        tx.session.execute(lose.execution_options(**quiet))
    lost = [i for i in instances if i.host_id in last_seen]
    transition(
        tx,
        lost,
        Event.HOST_LOST,
        detail=lambda i: f"host {i.host_id} was last seen at {last_seen[i.host_id or '']:%FT%TZ}",
    )
    _date_anew(tx)
    return sorted({*down, *(i.host_id or "" for i in lost)})


def _date_anew(tx: Transaction) -> None:
    """Hosts seen in the future were dated by a clock that was wrong: their silence counts from now."""
    ahead = Host.last_seen_at > tx.now + timedelta(seconds=tx.settings.controller.clock_skew_warn_s)
    query = select(Host.id).where(Host.up, ahead).order_by(Host.id).limit(LOST_AT_ONCE)
    names = tx.session.scalars(query.with_for_update(key_share=True, skip_locked=True)).all()
    for ids in chunks(names):
        dated = update(Host).where(among(Host.id, ids)).values(last_seen_at=tx.now)
        tx.session.execute(dated.execution_options(synchronize_session=False))
