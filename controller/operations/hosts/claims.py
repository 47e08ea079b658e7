"""Claims of host capacity: a conditional UPDATE decides the race, the row count tells who won."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from sqlalchemy import ColumnElement, Integer, String, Update, update
from sqlalchemy.types import TypeEngine

from controller.db.bulk import insert_rows, update_rows
from controller.db.models import Claim, Host
from controller.domain.errors import ClaimConflict
from controller.domain.hosts import HostMode
from controller.operations.cloud import Transaction
from controller.operations.instances.locking import LockedInstance, lock_hosts

_ROW: Mapping[str, TypeEngine[Any]] = {
    "host": String(),
    "now": Host.__table__.c.changed_at.type,
    "overhead_mib": Integer(),
    "n_vcpus": Integer(),
    "n_memory_mib": Integer(),
    "n_disk_gib": Integer(),
}


def _take(row: Callable[[str], ColumnElement[Any]]) -> Update:
    host = Host.__table__.c
    return (
        update(Host.__table__)  # type: ignore[arg-type]
        .where(
            host.id == row("host"),
            host.up,
            host.mode == HostMode.READY,
            host.guest_overhead_mib == row("overhead_mib"),
            host.vcpus_used + row("n_vcpus") <= host.vcpus_limit,
            host.memory_used_mib + row("n_memory_mib") <= host.memory_limit_mib,
            host.disk_used_gib + row("n_disk_gib") <= host.disk_limit_gib,
        )
        .values(
            vcpus_used=host.vcpus_used + row("n_vcpus"),
            memory_used_mib=host.memory_used_mib + row("n_memory_mib"),
            disk_used_gib=host.disk_used_gib + row("n_disk_gib"),
            changed_at=row("now"),
        )
    )


def claim_hosts(
    tx: Transaction,
    instances: Sequence[LockedInstance],
    overheads_mib: Mapping[str, int] = MappingProxyType({}),
) -> None:
    """Claim for the instances what they need of the hosts named in their ``host_id``, all or nothing.

    ``overheads_mib`` says what each guest takes of a host's memory beside its own, where that is more than nothing.

    Raises:
        ClaimConflict: a host has less room than the placement saw, needs more or less beside each guest's memory, or
            takes no instances any more.
    """
    needed: dict[str, Counter[str]] = defaultdict(Counter)
    for i in instances:
        of_host = needed[i.host_id or ""]
        of_host["n_vcpus"] += i.vcpus
        of_host["n_memory_mib"] += i.memory_mib + overheads_mib.get(i.host_id or "", 0)
        of_host["n_disk_gib"] += i.disk_gib
    wanted = [{"host": h, "now": tx.now, "overhead_mib": overheads_mib.get(h, 0), **needed[h]} for h in sorted(needed)]
    lock_hosts(tx, sorted(needed))
    if update_rows(tx.session, _take, _ROW, wanted) != len(wanted):
        raise ClaimConflict(kind="host", id=wanted[0]["host"] if len(wanted) == 1 else f"{len(wanted)} hosts")
    claims = [
        {
            "instance_id": i.id,
            "host_id": i.host_id,
            "vcpus": i.vcpus,
            "memory_mib": i.memory_mib + overheads_mib.get(i.host_id or "", 0),
            "overhead_mib": overheads_mib.get(i.host_id or "", 0),
            "disk_gib": i.disk_gib,
        }
        for i in instances
    ]
    insert_rows(tx.session, Claim.__table__, claims)
