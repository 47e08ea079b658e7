"""A spread group that is larger than the cloud."""

from controller.domain.states import State
from controller.operations.instances import placement_groups
from scheduler.host_cache import HostCache
from scheduler.schedule import schedule
from tests.labs.cloud import TestCloud


def test_why_there_was_no_room_is_said(site: TestCloud) -> None:
    site.heartbeat("h2")
    site.cloud.write(lambda tx: placement_groups.create_placement_group(tx, site.project_id, "apart", "spread"))
    first, *others = site.launch(3, group_name="apart")
    reservation = site.instance(first).reservation_id
    site.cloud.write(lambda tx: schedule(tx, [reservation], HostCache()))
    assert site.states([first, *others]) == [State.ERROR] * 3
    reason = site.instance(first).reason
    assert reason.startswith("there was room for 2 of 3")
    assert reason.endswith("the group takes one a host")
