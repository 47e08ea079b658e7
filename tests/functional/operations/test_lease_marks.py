"""The mark of a network's leases, made by each of the three engines, is the one that the service makes itself."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update

from controller.db.models import Lease
from controller.domain.messages import ScheduleReservation
from network import queries
from network.segment import LeaseMark
from scheduler.host_cache import HostCache
from scheduler.schedule import schedule
from tests.labs.cloud import TestCloud

pytestmark = pytest.mark.functional


@pytest.fixture
def site(tmp_path: Path, database_url: str) -> Iterator[TestCloud]:
    made = TestCloud.create(tmp_path, database_url)
    made.heartbeat()
    yield made
    made.close()


def place(site: TestCloud, count: int) -> None:
    """Instances with leases."""
    site.launch(count)
    wanted = [m.reservation_id for m in site.bus.take(ScheduleReservation)]
    assert site.cloud.write(lambda tx: schedule(tx, wanted, HostCache())) == count


def test_a_mark_is_that_of_the_rows(site: TestCloud) -> None:
    place(site, 3)
    # Numbers that are squared and added up without an overflow.
    site.cloud.write(lambda tx: tx.session.execute(update(Lease).values(id=Lease.id + 2_000_000_000)))
    found = site.cloud.read(queries.rows)
    (network_id,) = found.leases
    leases = found.leases[network_id]
    assert len(leases) == 3
    mark = LeaseMark.of(lease.lease_id for lease in leases)
    assert site.cloud.read(queries.marks).new == {network_id: queries.NewLeases((), mark)}
    ids = [lease.instance_id for lease in leases[:1]]
    new = site.cloud.read(lambda tx: queries.new_rows(tx, [], ids)).new
    assert new == {network_id: queries.NewLeases(leases[:1], mark)}


def test_a_lease_that_is_given_back_changes_the_mark(site: TestCloud) -> None:
    place(site, 2)
    before = site.cloud.read(queries.marks).new
    ((network_id, _),) = before.items()
    lease = site.cloud.read(queries.rows).leases[network_id][0]
    free = update(Lease).where(Lease.id == lease.lease_id).values(instance_id=None, free_after=site.cloud.clock())
    site.cloud.write(lambda tx: tx.session.execute(free))
    after = site.cloud.read(queries.marks).new[network_id]
    assert after.mark + LeaseMark.of([lease.lease_id]) == before[network_id].mark
    assert after.quarantined
