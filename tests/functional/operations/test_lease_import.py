"""A whole site's leases on the three engines: imported, changed, exported; and beside those who launch meanwhile."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import event, func, select

from controller.db.models import Instance, Lease, LeasePin, Project
from controller.domain.errors import ClaimConflict, LeasesRefused
from controller.domain.lease_file import LeaseFormat, LeaseRow, read_leases, write_leases
from controller.domain.messages import ScheduleReservation
from controller.domain.networks import NetworkKind
from controller.operations.cloud import Transaction
from controller.operations.networks import networks
from controller.operations.networks.pinned_leases import LeaseChanges, export_leases, import_leases
from scheduler.host_cache import HostCache
from scheduler.schedule import schedule
from tests.labs.cloud import TestCloud

pytestmark = pytest.mark.functional

LEASES, HOSTS, PINS = 8000, 100, 4


@pytest.fixture
def site(tmp_path: Path, database_url: str) -> Iterator[TestCloud]:
    made = TestCloud.create(tmp_path, database_url)
    for n in range(HOSTS):
        made.heartbeat(f"host-{n:03}")
    yield made
    made.close()


def a_site() -> list[LeaseRow]:
    random = Random(3)
    names = [f"host-{n:03}" for n in range(HOSTS)]
    return [
        LeaseRow(
            0,
            f"10.20.{n >> 8}.{n & 255}",
            f"02:00:00:00:{n >> 8:02x}:{n & 255:02x}",
            f"vm-{n}",
            tuple(sorted(random.sample(names, PINS))),
        )
        for n in range(2, LEASES + 2)
    ]


def take(site: TestCloud, network: str, rows: list[LeaseRow], *, prune: bool = False) -> LeaseChanges:
    file = read_leases(write_leases(rows, LeaseFormat.CSV).encode(), LeaseFormat.CSV)
    return site.cloud.write(lambda tx: import_leases(tx, network, file, prune=prune))


def test_thousands_of_leases(site: TestCloud) -> None:
    network = site.cloud.write(
        lambda tx: networks.create_network(tx, None, "site", "10.20.0.0/16", kind=NetworkKind.PINNED).id
    )
    statements: list[str] = []
    event.listen(site.cloud.database.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    rows = a_site()
    assert len(take(site, network, rows).added) == LEASES
    assert len(statements) < 60
    assert site.cloud.read(lambda tx: export_leases(tx, network)) == rows
    again = take(site, network, rows)
    assert (again.unchanged, bool(again)) == (LEASES, False)

    # Neighbours change their MAC addresses, all get other names, half of them other hosts; a few come and go.
    swapped = [
        replace(r, mac=rows[n ^ 1].mac, name=f"new-{n}", hosts=r.hosts if n % 2 else ("host-000",))
        for n, r in enumerate(rows)
    ]
    swapped[-1] = replace(swapped[-1], ip="10.20.200.1")
    statements.clear()
    changes = take(site, network, swapped, prune=True)
    assert (len(changes.added), len(changes.changed), len(changes.removed)) == (1, LEASES - 1, 1)
    assert len(statements) < 100
    assert site.cloud.read(lambda tx: export_leases(tx, network)) == swapped
    renamed = [replace(r, name=f"vm-{n}", hosts=("host-001",)) for n, r in enumerate(swapped)]
    assert len(take(site, network, renamed).changed) == LEASES
    assert site.cloud.read(lambda tx: export_leases(tx, network)) == renamed
    assert site.cloud.read(lambda tx: tx.session.scalar(select(func.count()).select_from(LeasePin))) == LEASES
    site.cloud.write(lambda tx: networks.delete_network(tx, network))
    assert site.cloud.read(lambda tx: tx.session.scalar(select(func.count()).select_from(Lease))) == 0


def test_one_launch_of_all_its_leases_is_a_few_statements(site: TestCloud) -> None:
    """From one instance to thousands, the request's transaction has the same number of statements."""
    network = site.cloud.write(
        lambda tx: networks.create_network(tx, None, "site", "10.20.0.0/16", kind=NetworkKind.PINNED).id
    )
    take(site, network, a_site())
    for n in range(HOSTS):
        site.heartbeat(f"host-{n:03}", vcpus=64)
    site.cloud.write(lambda tx: _unlimited(tx, site.project_id))
    statements: list[str] = []
    event.listen(site.cloud.database.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    site.launch(1, network_id=network)
    one = len(statements)
    statements.clear()
    assert len(site.launch(5000, network_id=network)) == 5000
    assert len(statements) == one <= 13


def test_two_imports_and_launches_at_once(site: TestCloud) -> None:
    network = site.cloud.write(
        lambda tx: networks.create_network(tx, None, "site", "10.20.0.0/16", kind=NetworkKind.PINNED).id
    )
    rows = a_site()[:200]
    take(site, network, rows)
    ones = [replace(r, name=f"a-{n}") for n, r in enumerate(rows)]
    others = [replace(r, name=f"b-{n}", mac=rows[n ^ 1].mac) for n, r in enumerate(rows)]
    with ThreadPoolExecutor(6) as pool:
        imports = [pool.submit(take, site, network, x) for x in (ones, others, ones, others)]
        launches = [pool.submit(site.launch, 1, network_id=network) for _ in range(20)]
        for done in imports:
            done.result()
        for launched in launches:
            launched.result()
    found = site.cloud.read(lambda tx: export_leases(tx, network))
    assert found in (ones, others)
    assert len(site.views()) == 20
    assert len(take(site, network, [], prune=True).removed) == 200


def test_no_lease_is_claimed_without_its_pin(site: TestCloud) -> None:
    """Promise 6, with imports that pin everything elsewhere while schedulers place."""
    network = site.cloud.write(
        lambda tx: networks.create_network(tx, None, "site", "10.20.0.0/16", kind=NetworkKind.PINNED).id
    )
    rows = a_site()[:60]
    take(site, network, rows)
    for _ in range(40):
        site.launch(1, network_id=network)
    bells = [m.reservation_id for m in site.bus.take(ScheduleReservation)]

    def place(n: int) -> None:
        cache = HostCache()
        for bell in bells[n::3]:
            with suppress(ClaimConflict):  # the sweep would ring again
                site.cloud.write(lambda tx, b=bell: schedule(tx, [b], cache))  # type: ignore[misc]

    def repin(n: int) -> None:
        for turn in range(6):
            with suppress(LeasesRefused):  # by now one is in use
                host = f"host-{(n + turn) % 5:03}"
                used = site.cloud.read(_used)
                free = [replace(r, name=f"n-{turn}-{r.name}", hosts=(host,)) for r in rows if r.ip not in used]
                take(site, network, free)

    with ThreadPoolExecutor(5) as pool:
        for done in [pool.submit(place, n) for n in range(3)] + [pool.submit(repin, n) for n in range(2)]:
            done.result()
    held = select(Lease.id, Instance.host_id).join(Instance, Instance.id == Lease.instance_id)
    pins = set(site.cloud.read(lambda tx: [(p.lease_id, p.host_id) for p in tx.session.scalars(select(LeasePin))]))
    claimed = {(r.id, r.host_id) for r in site.cloud.read(lambda tx: tx.session.execute(held).all())}
    assert claimed
    assert claimed <= pins


def _used(tx: Transaction) -> set[str]:
    return set(tx.session.scalars(select(Lease.ip).where(Lease.instance_id.is_not(None))))


def _unlimited(tx: Transaction, project_id: str) -> None:
    project = tx.session.get_one(Project, project_id)
    project.quota_instances = project.quota_vcpus = project.quota_memory_mib = 10**6 * 100
