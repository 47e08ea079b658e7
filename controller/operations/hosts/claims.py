"""Claims of host capacity: a conditional UPDATE decides the race, the row count tells who won."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from sqlalchemy import ColumnElement, Integer, String, Update, delete, select, update
from sqlalchemy.types import TypeEngine

from controller.db.bulk import among, insert_rows, update_rows
from controller.db.models import Claim, Host
from controller.domain.errors import ClaimConflict
from controller.domain.host_facts import CAPACITIES
from controller.domain.hosts import HostMode
from controller.operations.cloud import Transaction
from controller.operations.instances.locking import LockedInstance, chunks, lock_hosts

# The parameters of one host's UPDATE: n_<capacity> is how much of it is taken or given back.
_TO_GIVE_BACK: Mapping[str, TypeEngine[Any]] = {
    "host": String(),
    "now": Host.__table__.c.changed_at.type,
    **{f"n_{c.name}": Integer() for c in CAPACITIES},
}
_TO_TAKE: Mapping[str, TypeEngine[Any]] = {**_TO_GIVE_BACK, "overhead_mib": Integer()}
# What is given back, by host and capacity.
Released = Mapping[str, Mapping[str, int]]


def claim_hosts(
    tx: Transaction,
    instances: Sequence[LockedInstance],
    overheads_mib: Mapping[str, int] = MappingProxyType({}),
) -> None:
    """Claim for the instances what they need of the hosts named in their ``host_id``, all or nothing.

    ``overheads_mib``: the memory that each guest takes on a host beside its own, where that is not 0.

    Raises:
        ClaimConflict: a host has less room than the placement saw, another overhead, or takes no instances any more.
    """
    claims = [_claim(i, overheads_mib.get(i.host_id or "", 0)) for i in instances]
    needed: dict[str, Counter[str]] = defaultdict(Counter)
    for claim in claims:
        of_host = needed[claim["host_id"] or ""]
        for capacity in CAPACITIES:
            of_host[f"n_{capacity.name}"] += claim[capacity.name]
    wanted = [{"host": h, "now": tx.now, "overhead_mib": overheads_mib.get(h, 0), **needed[h]} for h in sorted(needed)]
    lock_hosts(tx, sorted(needed))
    if update_rows(tx.session, _take, _TO_TAKE, wanted) != len(wanted):
        raise ClaimConflict(kind="host", id=wanted[0]["host"] if len(wanted) == 1 else f"{len(wanted)} hosts")
    insert_rows(tx.session, Claim.__table__, claims)


def delete_claims(tx: Transaction, instance_ids: Sequence[str]) -> Released:
    """Delete the claims of these instances; answers with what their hosts are to get back (``give_back``)."""
    released: dict[str, Counter[str]] = defaultdict(Counter)
    for ids in chunks(instance_ids):
        for claim in tx.session.scalars(select(Claim).where(among(Claim.instance_id, ids))):
            for capacity in CAPACITIES:
                released[claim.host_id][f"n_{capacity.name}"] += getattr(claim, capacity.name)
        tx.session.execute(
            delete(Claim).where(among(Claim.instance_id, ids)).execution_options(synchronize_session=False)
        )
    return released


def give_back(tx: Transaction, released: Released) -> None:
    """Lower the counters of hosts by what was released; apart from the claims because hosts are locked last."""
    rows = [{"host": host, "now": tx.now, **released[host]} for host in sorted(released)]
    lock_hosts(tx, sorted(released))
    update_rows(tx.session, _give_back, _TO_GIVE_BACK, rows)


def _claim(instance: LockedInstance, overhead_mib: int) -> dict[str, Any]:
    return {
        "instance_id": instance.id,
        "host_id": instance.host_id,
        "overhead_mib": overhead_mib,
        **{c.name: getattr(instance, c.name) + (overhead_mib if c.overhead else 0) for c in CAPACITIES},
    }


def _take(row: Callable[[str], ColumnElement[Any]]) -> Update:
    host = Host.__table__.c
    fits = [host[c.used] + row(f"n_{c.name}") <= host[c.limit] for c in CAPACITIES]
    return (
        update(Host.__table__)  # type: ignore[arg-type]
        .where(
            host.id == row("host"),
            host.up,
            host.mode == HostMode.READY,
            host.guest_overhead_mib == row("overhead_mib"),
            *fits,
        )
        .values(**{c.used: host[c.used] + row(f"n_{c.name}") for c in CAPACITIES}, changed_at=row("now"))
    )


def _give_back(row: Callable[[str], ColumnElement[Any]]) -> Update:
    host = Host.__table__.c
    return (
        update(Host.__table__)  # type: ignore[arg-type]
        .where(host.id == row("host"))
        .values(**{c.used: host[c.used] - row(f"n_{c.name}") for c in CAPACITIES}, changed_at=row("now"))
    )
