"""A cloud whose rows keep every promise, and SQL that breaks them one at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import create_engine, text

from controller.db.models import Instance, Lease, LeasePin, PlacementGroup
from controller.domain.networks import NetworkKind
from controller.domain.placement_groups import GroupStrategy
from controller.domain.states import Event
from controller.operations.audit.audit import audit
from controller.operations.audit.violation import Violation
from controller.operations.cloud import Transaction
from controller.operations.instances import actions
from controller.operations.networks import networks
from tests.labs.cloud import START, TestCloud, place
from tests.labs.cloud import active as running

RECOUNT = tuple(
    f"UPDATE hosts SET {used} = (SELECT COALESCE(SUM({size}), 0) FROM claims WHERE host_id = hosts.id)"
    for used, size in (("vcpus_used", "vcpus"), ("memory_used_mib", "memory_mib"), ("disk_used_gib", "disk_gib"))
)


LONG_AGO = (START - timedelta(hours=1)).replace(tzinfo=None)


CLAIM = "INSERT INTO claims (instance_id, host_id, vcpus, memory_mib, disk_gib) VALUES"


@dataclass(frozen=True)
class GoodCloud:
    """Instances in many states on two hosts, a pinned lease, a spread group."""

    site: TestCloud
    active: Sequence[str]  # of one reservation, [0] and [1] on different hosts and in a spread group; [0] is pinned
    building: str
    gone: str
    failed: str
    ip: str  # of active[0]
    free_ip: str
    pinned_ip: str
    names: dict[str, Any]

    @classmethod
    def make(cls, site: TestCloud) -> "GoodCloud":
        site.heartbeat("h2")
        active = running(site, 4)
        stopped, gone = running(site, 1) + running(site, 1)
        site.cloud.write(lambda tx: actions.stop(tx, site.project_id, [stopped]))
        site.report([stopped], Event.SHUT_OFF)
        free_ip = site.views([gone])[0].ip
        site.cloud.write(lambda tx: actions.terminate(tx, site.project_id, [gone]))
        site.report([gone], Event.GONE)
        failed, left = site.launch(1) + site.launch(1)
        place(site)
        site.report([failed, left], Event.FAILED, "no such image")
        site.report([failed], Event.GONE)
        (building,) = site.launch(1, client_token="a token")
        place(site)
        site.launch(2, client_token="another token")  # REQUESTED
        active = site.cloud.write(lambda tx: _pin_and_spread(tx, active))
        names = {v.id: v for v in site.views()}
        return cls(
            site,
            active,
            building,
            gone,
            failed,
            names[active[0]].ip,
            free_ip,
            "192.168.77.9",
            {
                "active": active[0],
                "second": active[1],
                "building": building,
                "gone": gone,
                "failed": failed,
                "host": names[active[0]].host_id,
                "other": names[active[1]].host_id,
                "building_host": names[building].host_id,
                "free_ip": free_ip,
                "network": names[active[0]].network_id,
            },
        )

    def run(self, *statements: str) -> None:
        """Raw SQL, past every operation; the ids come in by name."""
        engine = create_engine(self.site.cloud.settings.database_url)
        with engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement), {"long_ago": LONG_AGO} | self.names)
        engine.dispose()

    def without_constraints(self, table: str) -> None:
        """Copy a table, as a careless dump does (SQLite)."""
        self.run(
            f"CREATE TABLE copied AS SELECT * FROM {table}",
            f"DROP TABLE {table}",
            f"ALTER TABLE copied RENAME TO {table}",
        )

    def violations(self) -> list[Violation]:
        return self.site.cloud.read(audit)


def _pin_and_spread(tx: Transaction, ids: Sequence[str]) -> list[str]:
    """The first two of what is answered are on different hosts."""
    rows = [tx.session.get_one(Instance, i) for i in ids]
    one = rows[0]
    two = next(r for r in rows if r.host_id != one.host_id)
    group = PlacementGroup(
        id="pg-1", project_id=one.project_id, name="g", strategy=GroupStrategy.SPREAD, created_at=tx.now
    )
    tx.session.add(group)
    one.group_id = two.group_id = group.id
    lease = tx.session.query(Lease).where(Lease.instance_id == one.id).one()
    tx.session.add(LeasePin(lease_id=lease.id, host_id=one.host_id or ""))
    pinned = networks.create_network(tx, None, "pinned", "192.168.77.0/24")
    pinned.kind = NetworkKind.PINNED
    tx.session.flush()
    free = Lease(network_id=pinned.id, ip="192.168.77.9", mac="02:00:00:00:00:01")
    tx.session.add(free)
    tx.session.flush()
    tx.session.add(LeasePin(lease_id=free.id, host_id="h1"))
    return [one.id, two.id, *(r.id for r in rows if r not in (one, two))]


# What is done -> the promises that are broken, the subject (by name), some words of it. In every engine's SQL.
BREAKS: dict[str, tuple[Sequence[str], Sequence[int], str, str]] = {
    "overdue": (
        ["UPDATE instances SET deadline_at = :long_ago WHERE id = :building"],
        [1], "building", "BUILDING 3600 s after its deadline",
    ),
    "no deadline": (
        ["UPDATE instances SET deadline_at = NULL WHERE id = :building"],
        [1], "building", "nothing says until when",
    ),
    "no reason": (["UPDATE instances SET reason = '' WHERE id = :failed"], [1], "failed", "nothing says why"),
    "no such state": (["UPDATE instances SET state = 'LOST' WHERE id = :second"], [1], "second", "'LOST' is not in"),
    "launch index twice": (
        ["UPDATE instances SET launch_index = 0 WHERE id IN (:active, :second)"],
        [2], "", "2 instances have launch index 0",
    ),
    "counter too high": (
        ["UPDATE hosts SET vcpus_used = vcpus_used + 1 WHERE id = :host"],
        [3], "", "vCPUs as used, its claims add up to",
    ),
    "beyond the limit": (
        ["UPDATE hosts SET memory_limit_mib = 1 WHERE id = :host"],
        [3], "", "MiB of memory are promised of it, the limit is 1",
    ),
    "no claim": (
        ["DELETE FROM claims WHERE instance_id = :active", *RECOUNT],
        [3], "active", "without a claim there",
    ),
    "claim elsewhere": (
        ["UPDATE claims SET host_id = :other WHERE instance_id = :active", *RECOUNT],
        [3, 3], "active", "claim",
    ),
    "two claims": (
        [f"{CLAIM} (:active, :other, 1, 1, 0)", *RECOUNT],
        [3], "active", "it has a claim on",
    ),
    "claim of what is gone": (
        [f"{CLAIM} (:gone, :host, 1, 1, 0)", *RECOUNT],
        [3], "gone", "but is DELETED on none",
    ),
    "claim of another size": (
        ["UPDATE claims SET vcpus = 5 WHERE instance_id = :active", *RECOUNT],
        [3], "active", "is not of its size",
    ),
    "on no host": (
        ["UPDATE instances SET host_id = NULL WHERE id = :building",
         "DELETE FROM claims WHERE instance_id = :building", *RECOUNT],
        [3], "building", "BUILDING and on no host",
    ),
    "no lease": (["DELETE FROM leases WHERE instance_id = :building"], [4], "building", "with 0 leases"),
    "two leases": (
        ["UPDATE leases SET instance_id = :building, released_at = NULL WHERE ip = :free_ip"],
        [4], "building", "with 2 leases",
    ),
    "lease of what is gone": (
        ["UPDATE leases SET instance_id = :gone, released_at = NULL WHERE ip = :free_ip"],
        [4], "free_ip", "which is DELETED",
    ),
    "owned and released": (
        ["UPDATE leases SET released_at = :long_ago WHERE instance_id = :building"],
        [4], "", "belongs to",
    ),
    "a MAC twice": (
        ["UPDATE leases SET mac = '02:aa:00:00:00:09' WHERE instance_id = :active",
         "UPDATE leases SET mac = '02:AA:00:00:00:09' WHERE instance_id = :second"],
        [4], "", "2 leases have this MAC",
    ),
    "outside of the network": (
        ["UPDATE leases SET ip = '192.0.2.1' WHERE instance_id = :active"],
        [4], "", "no guest can have it",
    ),
    "no address": (["UPDATE leases SET ip = 'rubbish' WHERE instance_id = :active"], [4], "", "no guest can have it"),
    "lease of another network": (
        ["UPDATE leases SET network_id = (SELECT id FROM networks WHERE name = 'pinned'), ip = '192.168.77.5' "
         "WHERE instance_id = :active"],
        [4], "active", "its lease is in",
    ),
    "no such VLAN": (["UPDATE networks SET vlan = 5000 WHERE id = :network"], [4], "network", "VLAN 5000 is none"),
    "overlapping ranges": (
        ["UPDATE networks SET cidr = '192.168.0.0/16' WHERE name = 'pinned'",
         "INSERT INTO networks (id, number, name, physical_network, vlan, cidr, next_offset, kind, created_at) "
         "SELECT 'net-x', 999, 'x', physical_network, 4001, '192.168.200.0/24', 2, 'POOLED', created_at "
         "FROM networks WHERE name = 'pinned'"],
        [4], "", "overlaps 192.168.0.0/16",
    ),
    "no range": (["UPDATE networks SET cidr = 'rubbish' WHERE name = 'pinned'"], [4], "", "'rubbish' is none"),
    "silent host": (
        ["UPDATE hosts SET last_seen_at = :long_ago WHERE id = :host"],
        [5], "", "its last heartbeat came 3600 s ago",
    ),
    "active on a host that is down": (
        ["UPDATE hosts SET last_seen_at = :long_ago, up = (1 = 0) WHERE id = :host"],
        [5], "", "and it is down",
    ),
    "not on its pin": (
        ["UPDATE lease_pins SET host_id = :other WHERE lease_id = (SELECT id FROM leases WHERE instance_id = :active)"],
        [6], "active", "is not pinned there",
    ),
    "pinned nowhere": (
        ["DELETE FROM lease_pins WHERE lease_id = (SELECT id FROM leases WHERE ip = '192.168.77.9')"],
        [6], "", "pinned to no host",
    ),
    "quota": (
        ["UPDATE projects SET used_memory_mib = used_memory_mib - 1"],
        [8], "", "MiB of memory are counted as used",
    ),
    "next address beyond the end": (
        ["UPDATE networks SET next_offset = 100000 WHERE id = :network"],
        [9], "network", "its next new address is number 100000",
    ),
}  # fmt: skip
