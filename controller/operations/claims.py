"""Claims of host capacity: one conditional UPDATE a host decides the race, the row count tells who won."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from sqlalchemy import bindparam, insert, update

from controller.db.models import Claim, Host, HostMode
from controller.domain.errors import ClaimConflict
from controller.operations.cloud import Transaction
from controller.operations.held import HeldInstance

_H = Host.__table__
_TAKE = (
    update(_H)  # type: ignore[arg-type]
    .where(
        _H.c.id == bindparam("host"),
        _H.c.up,
        _H.c.mode == HostMode.READY,
        _H.c.guest_overhead_mib == bindparam("overhead_mib"),
        _H.c.vcpus_used + bindparam("n_vcpus") <= _H.c.vcpus_limit,
        _H.c.memory_used_mib + bindparam("n_memory_mib") <= _H.c.memory_limit_mib,
        _H.c.disk_used_gib + bindparam("n_disk_gib") <= _H.c.disk_limit_gib,
    )
    .values(
        vcpus_used=_H.c.vcpus_used + bindparam("n_vcpus"),
        memory_used_mib=_H.c.memory_used_mib + bindparam("n_memory_mib"),
        disk_used_gib=_H.c.disk_used_gib + bindparam("n_disk_gib"),
    )
)


def claim_hosts(
    tx: Transaction,
    instances: Sequence[HeldInstance],
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
    wanted = [{"host": h, "overhead_mib": overheads_mib.get(h, 0), **needed[h]} for h in sorted(needed)]
    taken = tx.session.connection().execute(_TAKE, wanted)
    if taken.rowcount != len(wanted):
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
    tx.session.execute(insert(Claim.__table__), claims)  # type: ignore[arg-type]
