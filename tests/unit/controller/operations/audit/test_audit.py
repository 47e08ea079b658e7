"""The auditor: a good cloud is clean, each promise that is broken by hand is told, and nothing else is."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, event, text

from controller.db.models import Instance, Lease, LeasePin, Network, PlacementGroup
from controller.domain.networks import NetworkKind
from controller.domain.placement_groups import GroupStrategy
from controller.domain.states import Event, State
from controller.operations.audit.audit import audit
from controller.operations.audit.violation import Violation
from controller.operations.cloud import Transaction
from controller.operations.instances import actions
from controller.operations.networks import networks
from tests.labs.cloud import START, TestCloud
from tests.unit.controller.operations.instances.test_launch import place

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
        active = _active(site, 4)
        stopped, gone = _active(site, 1) + _active(site, 1)
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
        names = {v.instance.id: v for v in site.views()}
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
                "host": names[active[0]].instance.host_id,
                "other": names[active[1]].instance.host_id,
                "building_host": names[building].instance.host_id,
                "free_ip": free_ip,
                "network": names[active[0]].instance.network_id,
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


def _active(site: TestCloud, count: int) -> list[str]:
    ids = site.launch(count)
    place(site)
    site.report(ids, Event.RUNNING)
    assert site.states(ids) == [State.ACTIVE] * count
    return ids


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


@pytest.fixture
def good(site: TestCloud) -> Iterator[GoodCloud]:
    made = GoodCloud.make(site)
    assert made.violations() == []
    yield made


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
        [3], "", "vCPU as used, its claims add up to",
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


def expect(good: GoodCloud, name: str) -> None:
    statements, promises, subject, words = BREAKS[name]
    good.run(*statements)
    found = good.violations()
    assert [b.promise for b in found] == list(promises), found
    assert any(words in b.what for b in found), found
    if subject:
        assert {b.subject for b in found} == {good.names[subject]}
    assert all(b.advice and str(b).startswith(f"promise {b.promise}: {b.subject}: ") for b in found)


@pytest.mark.parametrize("name", BREAKS)
def test_each_breach_is_told_and_nothing_else(good: GoodCloud, name: str) -> None:
    expect(good, name)


def test_spread(good: GoodCloud) -> None:
    same = next(
        v.instance.id
        for v in good.site.views(good.active[2:])
        if v.instance.host_id in (good.names["host"], good.names["other"])
    )
    good.run(f"UPDATE instances SET group_id = 'pg-1' WHERE id = '{same}'")
    (violation,) = good.violations()
    assert (violation.promise, violation.subject) == (6, "pg-1")
    assert "2 of the spread group" in violation.what


def test_mac_addresses_that_a_host_may_not_carry(good: GoodCloud) -> None:
    good.run("UPDATE hosts SET allowed_macs = '02:aa:00:00:00:77' WHERE id = 'h1'")
    found = good.violations()
    assert {(b.promise, b.subject) for b in found} == {(6, "host h1")}
    assert any("02:00:00:00:00:01: lease 192.168.77.9 is pinned to h1" in b.what for b in found)
    assert any("02:aa:00:00:00:77: h1 may carry it" in b.what for b in found)


@pytest.mark.parametrize(
    ("table", "statement", "promise", "words"),
    [
        ("reservations", "UPDATE reservations SET client_token = 'x'", 2, "client token 'x' has"),
        ("leases", "UPDATE leases SET ip = (SELECT ip FROM leases WHERE instance_id = :active)"
         " WHERE instance_id = :second", 4, "2 leases of"),
        ("networks", "UPDATE networks SET vlan = 7", 4, "2 networks have VLAN 7"),
    ],
)  # fmt: skip
def test_what_only_a_constraint_holds(good: GoodCloud, table: str, statement: str, promise: int, words: str) -> None:
    good.without_constraints(table)
    missing = good.violations()
    assert missing
    assert {b.promise for b in missing} == {promise}
    assert all("UNIQUE" in b.what and b.subject == f"table {table}" for b in missing)
    good.run(statement)
    (violation,) = [b for b in good.violations() if b not in missing]
    assert violation.promise == promise
    assert words in violation.what


@pytest.mark.parametrize("minutes", [0, 1])
def test_what_is_overdue_for_a_moment_is_work_in_flight(good: GoodCloud, minutes: int) -> None:
    good.site.clock.advance(120 + 30 * minutes)  # REQUESTED has 120 s
    for host in ("h1", "h2"):
        good.site.heartbeat(host)
    assert good.violations() == []


def test_the_number_of_statements_does_not_grow(good: GoodCloud) -> None:
    def count() -> int:
        seen: list[str] = []
        note: Callable[..., None] = lambda _c, _k, statement, *_: seen.append(statement)  # noqa: E731
        engine = good.site.cloud.database.engine
        event.listen(engine, "before_cursor_execute", note)
        assert good.violations() == []
        event.remove(engine, "before_cursor_execute", note)
        return len([s for s in seen if "PRAGMA" not in s and "sqlite_master" not in s])

    before = count()
    _active(good.site, 9)
    assert count() == before <= 30


def test_a_network_may_be_of_nobody(good: GoodCloud, tmp_path: Path) -> None:
    good.site.cloud.write(
        lambda tx: tx.session.query(Network).where(Network.name == "pinned").update({"project_id": None})
    )
    assert good.violations() == []
