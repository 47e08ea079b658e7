"""Image files that nothing needs are removed, from the store and from caches; those that something needs never."""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import select

from compute_agent.images.cache import ImageCache
from controller.db.models import Image
from controller.domain.messages import RemoveImages
from controller.domain.states import Event, State
from controller.operations.cloud import Transaction
from controller.operations.images import images
from controller.operations.images.pruning import LAUNCH_S, prune, prune_caches, store_lock
from controller.operations.instances import actions
from controller.workers.service import ControllerService
from scheduler.host_cache import HostCache
from scheduler.schedule import schedule
from tests.labs.cloud import START, TestCloud


@pytest.fixture
def site(tmp_path: Path) -> Iterator[TestCloud]:
    made = TestCloud.create(tmp_path)
    source = tmp_path / "source.raw"
    source.write_bytes(b"disk" + bytes(508))
    image = images.import_image(made.cloud, source, name="mine", project_id=made.project_id)
    made.image_id = image.id
    made.heartbeat("h1", images=(image.sha256,), speaks=2)
    made.heartbeat("h2", images=(image.sha256,), speaks=1)
    made.heartbeat("h3", speaks=2)
    yield made
    made.close()


def deregister(site: TestCloud) -> None:
    site.cloud.write(lambda tx: images.deregister(tx, None, site.image_id))
    later(site)


def later(site: TestCloud) -> None:
    """What was just stored or deregistered was so a while ago."""
    site.clock.advance(LAUNCH_S + 1)
    for file in stored(site):
        os.utime(file, (START.timestamp(), START.timestamp()))


def stored(site: TestCloud) -> list[Path]:
    return list(site.cloud.settings.image_store.glob("*.raw"))


def reasons(site: TestCloud) -> list[str]:
    return [file.needed_by for file in prune(site.cloud, dry_run=True)]


def launched(site: TestCloud) -> str:
    (instance_id,) = site.launch(1)
    row = site.instance(instance_id)
    site.cloud.write(lambda tx: schedule(tx, [row.reservation_id], HostCache()))
    site.report([instance_id], Event.RUNNING)
    return instance_id


def told(site: TestCloud) -> list[tuple[str, tuple[str, ...]]]:
    site.cloud.write(prune_caches)
    return [(m.host, m.images) for m in site.bus.take(RemoveImages)]


def test_a_registered_image_stays(site: TestCloud) -> None:
    later(site)
    assert reasons(site) == ["a registered image"]
    prune(site.cloud)
    assert len(stored(site)) == 1
    assert told(site) == []


def test_a_deregistered_one_goes(site: TestCloud) -> None:
    deregister(site)
    assert reasons(site) == [""]
    assert len(stored(site)) == 1  # that was a dry run
    prune(site.cloud)
    assert stored(site) == []


def test_hosts_that_can_read_it_are_told(site: TestCloud) -> None:
    (file,) = stored(site)
    deregister(site)
    assert told(site) == [("h1", (file.stem,))]  # h2 is of an older release, h3 does not have it


@pytest.mark.parametrize("state", [State.ACTIVE, State.STOPPED, State.DELETING])
def test_an_instance_keeps_it(site: TestCloud, state: State) -> None:
    instance_id = launched(site)
    if state is State.STOPPED:
        site.cloud.write(lambda tx: actions.stop(tx, None, [instance_id]))
        site.report([instance_id], Event.SHUT_OFF)
    if state is State.DELETING:
        site.cloud.write(lambda tx: actions.terminate(tx, None, [instance_id]))
    assert site.states([instance_id]) == [state]
    deregister(site)
    assert reasons(site) == ["1 instance"]
    prune(site.cloud)
    assert len(stored(site)) == 1
    assert told(site) == []
    site.cloud.write(lambda tx: actions.terminate(tx, None, [instance_id]))
    site.report([instance_id], Event.GONE)
    prune(site.cloud)
    assert stored(site) == []


def test_another_image_with_the_same_content_keeps_it(site: TestCloud) -> None:
    def copy(tx: Transaction) -> None:
        row = tx.session.get_one(Image, site.image_id)
        values = {c.name: getattr(row, c.name) for c in Image.__table__.columns}
        tx.session.add(Image(**{**values, "id": "ami-another", "name": "another"}))

    site.cloud.write(copy)
    deregister(site)
    assert reasons(site) == ["a registered image"]


def test_a_launch_that_is_under_way_has_its_time(site: TestCloud) -> None:
    later(site)
    site.cloud.write(lambda tx: images.deregister(tx, None, site.image_id))
    site.clock.advance(LAUNCH_S - 1)
    assert reasons(site) == ["deregistered less than 120 s ago"]
    site.cloud.write(lambda tx: images.deregister(tx, None, site.image_id))  # again: that was long ago
    site.clock.advance(2)
    assert reasons(site) == [""]


def test_an_import_that_is_under_way_is_not_robbed(site: TestCloud) -> None:
    deregister(site)
    with store_lock(site.cloud.settings):
        prune(site.cloud)
        assert len(stored(site)) == 1
    for file in stored(site):
        os.utime(file)  # stored again just now, its row is not there yet
    site.clock.now = datetime.now(UTC)
    assert reasons(site) == ["stored less than 120 s ago"]


def test_a_store_of_another_user_is_usable(site: TestCloud) -> None:
    """root imports an image, the API runs as another user."""
    conf, is_root = site.cloud.settings, os.geteuid() == 0
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        lock = Path(folder, ".lock")
        lock.touch()
        lock.chmod(0o444)
        if is_root:
            os.seteuid(65534)
        try:
            with store_lock(replace(conf, images=replace(conf.images, store=folder)), exclusive=True) as locked:
                assert locked
        finally:
            if is_root:
                os.seteuid(0)


def test_a_file_without_a_row_goes_by_command_only(site: TestCloud) -> None:
    orphan = site.cloud.settings.image_store / f"{'e' * 64}.qcow2"
    orphan.write_bytes(b"x")
    os.utime(orphan, (START.timestamp(), START.timestamp()))
    other = site.cloud.settings.image_store / "README"
    other.touch()
    later(site)
    prune(site.cloud)  # as the API does: after a restore it may be an image that was imported since
    assert orphan.exists()
    prune(site.cloud, unknown=True)
    assert not orphan.exists()
    assert other.exists()
    assert len(stored(site)) == 1


def test_the_controller_does_it_by_itself(site: TestCloud) -> None:
    conf = site.cloud.settings
    conf = replace(conf, images=replace(conf.images, prune_after_s=LAUNCH_S))
    deregister(site)
    service = ControllerService(replace(site.cloud, settings=conf))
    service.sweep()
    service.purge()
    assert [m.host for m in site.bus.take(RemoveImages)] == ["h1"]


def test_a_cache_keeps_what_a_disk_is_over_or_a_boot_holds(tmp_path: Path) -> None:
    folder, sums = tmp_path / "cache", ["a" * 64, "b" * 64, "c" * 64]
    folder.mkdir()
    for checksum in sums:
        (folder / f"{checksum}.raw").write_bytes(bytes(512))
    used = (folder / f"{sums[0]}.raw").stat().st_ino
    cache = ImageCache(folder, tmp_path, 10**6, lambda: frozenset({used}))
    cache._held[sums[1]] += 1
    cache.remove(sums)
    assert cache.images() == tuple(sums[:2])
    cache._held.clear()
    cache.remove([sums[1]])
    assert cache.images() == (sums[0],)


def test_rows_of_images_stay(site: TestCloud) -> None:
    deregister(site)
    prune(site.cloud)
    assert site.cloud.read(lambda tx: len(tx.session.scalars(select(Image)).all())) == 2
