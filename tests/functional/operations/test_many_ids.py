"""Rows by thousands of ids, on the three engines."""

from collections.abc import Collection, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select, text, update

from controller.db.bulk import among
from controller.db.models import Instance, Lease
from controller.domain.lease_file import LeaseFormat, read_leases
from controller.domain.networks import NetworkKind
from controller.operations.cloud import Transaction
from controller.operations.networks.leases import lock_free
from controller.operations.networks.networks import create_network
from controller.operations.networks.pinned_leases import import_leases
from tests.labs.cloud import TestCloud
from tests.labs.servers.postgresql import PostgreSQL

pytestmark = pytest.mark.functional


@pytest.fixture
def site(tmp_path: Path, database_url: str) -> Iterator[TestCloud]:
    made = TestCloud.create(tmp_path, database_url)
    made.heartbeat(vcpus=1000, memory_mib=10**6, disk_gib=10**6)
    yield made
    made.close()


def test_each_time_with_other_ids(site: TestCloud) -> None:
    ids = site.launch(40)

    def found(tx: Transaction, wanted: Collection[str]) -> list[str]:
        query = select(Instance.id).where(among(Instance.id, wanted), Instance.deleted_at.is_(None))
        return list(tx.session.scalars(query.order_by(Instance.id).with_for_update()))

    for wanted in ([], ids[:1], ids[3:20], ids, {*ids[5:9]}, dict.fromkeys(ids[30:]), ["i-0", *ids[:2]]):
        assert site.cloud.write(lambda tx, w=wanted: found(tx, w)) == sorted(set(wanted) & set(ids))  # type: ignore[misc]


def test_rows_of_ids_change(site: TestCloud) -> None:
    ids = site.launch(10)
    for some in (ids[:3], ids[3:4], []):
        change = update(Instance).where(among(Instance.id, some)).values(rings=7)
        site.cloud.write(lambda tx, c=change: tx.session.execute(c.execution_options(synchronize_session=False)))  # type: ignore[misc]
    rung = site.cloud.read(lambda tx: set(tx.session.scalars(select(Instance.id).where(Instance.rings == 7))))
    assert rung == set(ids[:4])


def test_leases_are_found_by_their_ids_after_a_large_import(tmp_path: Path, postgresql: PostgreSQL) -> None:
    """The server's statistics are from before: autovacuum has not come by yet."""
    site = TestCloud.create(tmp_path, postgresql.new_database())
    site.heartbeat()
    network = site.cloud.write(lambda tx: create_network(tx, None, "site", "10.20.0.0/16", kind=NetworkKind.PINNED).id)
    rows = [f"10.20.{n >> 8}.{n & 255},02:00:00:00:{n >> 8:02x}:{n & 255:02x},h1" for n in range(256, 8256)]
    file = read_leases("\n".join(["ip,mac,hosts", *rows]).encode(), LeaseFormat.CSV)
    site.cloud.write(lambda tx: tx.session.execute(text("ALTER TABLE leases SET (autovacuum_enabled = false)")))
    site.cloud.write(lambda tx: import_leases(tx, network, file))
    ids = site.cloud.read(lambda tx: list(tx.session.scalars(select(Lease.id))))
    for _ in range(30):
        assert len(site.cloud.write(lambda tx: lock_free(tx, ids[:1000]))) == 1000
    site.cloud.write(lambda tx: tx.session.execute(text("SELECT pg_stat_force_next_flush()")))
    read = text("SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'ix_leases_free'")
    assert site.cloud.read(lambda tx: tx.session.scalar(read)) == 0, "all that are free were compared with all ids"
    site.close()
