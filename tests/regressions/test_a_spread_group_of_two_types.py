"""Two requests into one spread group that were placed together, of different types, were put on the same hosts: the
second one was planned before the first one's hosts were written down."""

from pathlib import Path

from controller.operations.instances import placement_groups
from scheduler.host_cache import HostCache
from scheduler.schedule import schedule
from tests.labs.cloud import TestCloud


def test_their_members_are_apart(tmp_path: Path) -> None:
    site = TestCloud.create(tmp_path)
    try:
        site.heartbeat("h1")
        site.heartbeat("h2")
        site.cloud.write(lambda tx: placement_groups.create_placement_group(tx, site.project_id, "apart", "spread"))
        ids = [i for kind in ("p1.tiny", "t2.nano") for i in site.launch(2, instance_type=kind, group_name="apart")]
        reservations = {site.instance(i).reservation_id for i in ids}
        assert site.cloud.write(lambda tx: schedule(tx, reservations, HostCache())) == 2
        assert sorted(site.instance(i).host_id or "" for i in ids) == ["", "", "h1", "h2"]
    finally:
        site.close()
