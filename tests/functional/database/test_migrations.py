"""Migrations on the three engines: up from nothing, equal to the models, down again, up with data in it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, create_engine, event, inspect, select, text, update

from controller.db.database import Database
from controller.db.models import Base, Instance, Lease
from controller.domain.states import Event, State
from controller.operations.database import schema
from controller.operations.instances import history, transitions
from scheduler.host_cache import HostCache
from scheduler.schedule import schedule
from tests.labs.cloud import TestCloud, make_settings
from tests.labs.servers.guarded import wait_until
from tests.labs.servers.postgresql import PostgreSQL

pytestmark = pytest.mark.functional


def test_up_is_what_the_models_say_and_down_leaves_nothing(tmp_path: Path, database_url: str) -> None:
    settings = make_settings(tmp_path, database_url)
    assert schema.current(settings) is None
    schema.upgrade(settings)
    assert schema.current(settings) == schema.newest()
    database = Database(settings)
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    schema.upgrade(settings)
    schema.downgrade(settings, "base")
    assert schema.current(settings) is None
    assert set(inspect(database.engine).get_table_names()) <= {"alembic_version"}
    database.close()


def test_down_and_up_again_with_data_in_it(tmp_path: Path, database_url: str) -> None:
    site = TestCloud.create(tmp_path, database_url)
    site.heartbeat()
    site.launch(2)
    site.close()
    schema.downgrade(site.cloud.settings, "base")
    again = TestCloud.create(tmp_path, database_url)
    assert again.views() == []
    again.close()


def test_every_released_revision_upgrades_with_data_in_it(tmp_path: Path, database_url: str) -> None:
    """What an older release wrote is there after the upgrade, its story too."""
    site = TestCloud.create(tmp_path, database_url)
    site.heartbeat()
    ids = site.launch(2)
    settings = site.cloud.settings
    site.close()
    for revision in ("0004", "0003", "0002", "0001"):
        schema.downgrade(settings, revision)
        assert schema.current(settings) == revision
        schema.upgrade(settings)
    assert [v.id for v in site.views()] == ids
    story = site.cloud.read(lambda tx: history.explain(tx, ids[0]).events)
    assert [s.event for s in story] == ["REQUESTED"]
    site.close()


def test_addresses_that_rest_survive_an_older_release(tmp_path: Path, database_url: str) -> None:
    """0003: what was given back is free after the upgrade, what is held stays held."""
    site = TestCloud.create(tmp_path, database_url, network__driver="linux")
    site.heartbeat()
    kept, gone = site.launch(2)
    site.cloud.write(lambda tx: schedule(tx, [site.instance(kept).reservation_id], HostCache()))
    site.cloud.write(lambda tx: transitions.transition(tx, transitions.lock_instances(tx, [gone]), Event.DELETE))
    site.report([gone], Event.GONE)

    def leases() -> list[tuple[str | None, bool, bool]]:
        rows = site.cloud.read(lambda tx: tx.session.scalars(select(Lease).order_by(Lease.instance_id.is_(None))).all())
        return [(row.instance_id, row.released_at is not None, row.free_after is not None) for row in rows]

    assert leases() == [(kept, False, False), (None, True, True)]
    site.close()
    schema.downgrade(site.cloud.settings, "0002")
    schema.upgrade(site.cloud.settings)
    assert leases() == [(kept, False, False), (None, True, False)]
    site.close()


def test_a_delete_that_release_01_gave_up_is_awaited_again(tmp_path: Path, database_url: str) -> None:
    site = TestCloud.create(tmp_path, database_url)
    site.heartbeat()
    ids = site.launch(3)
    reservations = [v.reservation_id for v in site.views(ids[:1])]
    assert site.cloud.write(lambda tx: schedule(tx, reservations, HostCache())) == 3
    site.report(ids, Event.FAILED, "no space left")
    because = "its host did not report it gone in time; terminate it again, or `pileus host remove --force` (DELETING)"
    row = update(Instance).where(Instance.id == ids[0]).values(reason=because)
    site.cloud.write(lambda tx: tx.session.execute(row))
    schema.downgrade(site.cloud.settings, "0004")
    schema.upgrade(site.cloud.settings)
    assert site.states(ids) == [State.DELETING, State.ERROR, State.ERROR]
    assert site.instance(ids[0]).ring_at is not None
    site.report(ids, Event.GONE)
    assert site.states(ids) == [State.DELETED, State.ERROR, State.ERROR]
    site.close()


@pytest.mark.parametrize("where", ["CREATE TABLE services", "ix_leases_free"])
def test_an_upgrade_that_was_killed_is_taken_up_again(tmp_path: Path, database_url: str, where: str) -> None:
    settings = make_settings(tmp_path, database_url)
    schema.upgrade(settings, "0004")
    with killed_at(where), pytest.raises(KilledError):
        schema.upgrade(settings)
    schema.upgrade(settings)
    database = Database(settings)
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    database.close()
    with killed_at("DROP TABLE stray_guests"), pytest.raises(KilledError):
        schema.downgrade(settings, "0004")
    schema.downgrade(settings, "0004")
    assert schema.current(settings) == "0004"


class KilledError(Exception):
    """Stands for kill -9 between two statements."""


@contextmanager
def killed_at(where: str) -> Iterator[None]:
    def kill(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if where in statement:
            raise KilledError

    event.listen(Engine, "before_cursor_execute", kill)
    yield
    event.remove(Engine, "before_cursor_execute", kill)


def test_an_older_release_finds_claims_of_its_own_size(tmp_path: Path, database_url: str) -> None:
    """It knows nothing of what a hypervisor needs beside a guest, and takes a larger claim for wrong."""
    site = TestCloud.create(tmp_path, database_url)
    site.heartbeat("h1", guest_overhead_mib=64)
    site.heartbeat("h2")
    ids = site.launch(3)
    reservations = [v.reservation_id for v in site.views(ids[:1])]
    assert site.cloud.write(lambda tx: schedule(tx, reservations, HostCache())) == 3
    site.close()
    schema.downgrade(site.cloud.settings, "0004")
    database = Database(site.cloud.settings)
    with database.engine.connect() as connection:
        claimed = connection.execute(text("SELECT host_id, sum(memory_mib) FROM claims GROUP BY host_id")).all()
        used = connection.execute(text("SELECT id, memory_used_mib FROM hosts WHERE memory_used_mib > 0")).all()
    database.close()
    assert {host: int(mib) for host, mib in claimed} == {row.id: row.memory_used_mib for row in used}
    assert sum(mib for _, mib in used) == 3 * 128


def test_an_older_release_finds_reason_codes_of_its_own(tmp_path: Path, database_url: str) -> None:
    """It shows them to EC2's clients as they are."""
    site = TestCloud.create(tmp_path, database_url)
    site.heartbeat()
    ids = site.launch(4)
    codes = ["no_capacity", "instance_initiated_shutdown", "build_failed", "Server.InsufficientFreeAddresses"]
    for instance_id, code in zip(ids, codes, strict=True):
        row = update(Instance).where(Instance.id == instance_id).values(reason_code=code)
        site.cloud.write(lambda tx, r=row: tx.session.execute(r))  # type: ignore[misc]
    site.close()
    schema.downgrade(site.cloud.settings, "0004")
    database = Database(site.cloud.settings)
    with database.engine.connect() as connection:
        found = connection.execute(text("SELECT reason_code FROM instances ORDER BY launch_index")).scalars().all()
    database.close()
    assert found == [
        "Server.InsufficientInstanceCapacity",
        "Client.InstanceInitiatedShutdown",
        "Server.InternalError",
        "Server.InsufficientFreeAddresses",
    ]


def test_a_migration_that_loses_against_the_services_is_begun_again(tmp_path: Path, postgresql: PostgreSQL) -> None:
    """A transaction of a running cloud holds what it is to change, for longer than it waits."""
    url = postgresql.new_database()
    settings = make_settings(tmp_path, url, database__lock_timeout_s=1)
    schema.upgrade(settings)
    schema.downgrade(settings, "0004")
    engine = create_engine(url)
    waiting = text(
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'hosts'::regclass"
        " AND mode = 'AccessExclusiveLock'"
    )
    with ThreadPoolExecutor(1) as pool, engine.connect() as service, engine.connect() as observer:
        service.execute(text("SELECT * FROM hosts"))
        migration = pool.submit(schema.upgrade, settings)
        for count in (1, 0):  # it waits, and gives up

            def is_so(count: int = count) -> bool:
                assert not migration.done(), migration.exception()
                return bool(observer.scalar(waiting) == count)

            wait_until(is_so, deadline_s=60, what=lambda: "the migration does not wait, or waits for ever")
        service.rollback()
        migration.result(timeout=60)
    assert schema.current(settings) == schema.newest()
    engine.dispose()
    postgresql.drop_database(url)
