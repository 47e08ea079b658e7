"""Launching: from the request to ACTIVE, and everything that can be wrong with a request."""

import base64
from typing import Any

import pytest

from controller.db.models import Host, Instance, InstanceEvent, Project
from controller.domain.errors import (
    CloudError,
    IdempotentParameterMismatch,
    ImageNotFound,
    InstanceTypeNotFound,
    InvalidParameter,
    KeyPairNotFound,
    NoFreeAddress,
    NoValidHost,
    QuotaExceeded,
    ZoneNotFound,
)
from controller.domain.guests import Desired
from controller.domain.hosts import HostMode
from controller.domain.messages import PrepareNetworks, ReconcileGuests, ScheduleReservation
from controller.domain.states import Event, State
from controller.operations.accounts import projects
from controller.operations.hosts import hosts
from controller.operations.instances import actions, history
from controller.operations.instances.guest_specs import reconcile_commands
from controller.operations.instances.transitions import lock_instances
from scheduler.host_cache import HostCache
from scheduler.schedule import schedule
from tests.labs.cloud import TestCloud, place


def test_from_request_to_active(site: TestCloud) -> None:
    ids = site.launch(3)
    assert site.states() == [State.REQUESTED] * 3
    assert place(site) == [3]
    assert site.states() == [State.BUILDING] * 3
    views = site.views()
    assert len({v.ip for v in views}) == len({v.mac for v in views}) == 3
    (wire,) = [m for m in site.bus.take(PrepareNetworks) if m.instance_ids]
    assert sorted(wire.instance_ids) == sorted(ids)
    (command,) = site.cloud.read(lambda tx: reconcile_commands(tx, lock_instances(tx, ids)))
    assert command.host == "h1"
    assert [g.desired for g in command.guests] == [Desired.RUNNING] * 3
    assert {g.nics[0].ip for g in command.guests} == {v.ip for v in views}
    site.report(ids, Event.RUNNING)
    assert site.states() == [State.ACTIVE] * 3
    events = site.cloud.read(lambda tx: [s.event for s in history.explain(tx, ids[0]).events])
    assert events == ["REQUESTED", "PLACED", "RUNNING"]


def test_a_doorbell_rung_twice_places_once(site: TestCloud) -> None:
    site.launch(2)
    (bell,) = site.bus.take(ScheduleReservation)
    assert site.cloud.write(lambda tx: schedule(tx, [bell.reservation_id], HostCache())) == 2
    assert site.cloud.write(lambda tx: schedule(tx, [bell.reservation_id], HostCache())) == 0


def test_usage_is_the_sum_of_the_claims_and_goes_back_to_nothing(site: TestCloud) -> None:
    ids = site.launch(4)
    place(site)
    host = site.cloud.read(lambda tx: hosts.get_host(tx, "h1"))
    assert (host.vcpus_used, host.memory_used_mib, host.disk_used_gib) == (4, 4 * 128, 4)
    site.cloud.write(lambda tx: actions.terminate(tx, site.project_id, ids))
    assert site.states() == [State.DELETING] * 4
    assert [g.desired for c in site.commands() for g in c.guests] == [Desired.ABSENT] * 4
    site.report(ids, Event.GONE)
    assert site.states() == [State.DELETED] * 4
    host = site.cloud.read(lambda tx: hosts.get_host(tx, "h1"))
    assert (host.vcpus_used, host.memory_used_mib, host.disk_used_gib) == (0, 0, 0)
    project = site.cloud.read(lambda tx: projects.get_project(tx, "demo"))
    assert (project.used_instances, project.used_vcpus, project.used_memory_mib) == (0, 0, 0)
    assert all(not v.ip for v in site.views())


def test_the_same_token_gives_the_same_instances(site: TestCloud) -> None:
    first = site.launch(2, client_token="once")
    assert site.launch(2, client_token="once") == first
    assert len(site.views()) == 2
    with pytest.raises(IdempotentParameterMismatch):
        site.launch(3, client_token="once")


def test_as_many_as_there_is_room_for_down_to_the_minimum(site: TestCloud) -> None:
    room = 16384 // 128
    assert len(site.launch(min_count=1, max_count=1000, instance_type="p1.tiny")) == min(64, room)
    place(site)
    with pytest.raises(NoValidHost, match="too little free capacity"):
        site.launch(1)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"image_id": "ami-00000000000000000"}, ImageNotFound),
        ({"instance_type": "z9.huge"}, InstanceTypeNotFound),
        ({"key_name": "nobody's"}, KeyPairNotFound),
        ({"min_count": 0}, InvalidParameter),
        ({"min_count": 3, "max_count": 2}, InvalidParameter),
        ({"max_count": 10**9}, InvalidParameter),
        ({"client_token": "x" * 65}, InvalidParameter),
        ({"zone": "mars"}, ZoneNotFound),
        ({"instance_type": "m5.2xlarge", "min_count": 100, "max_count": 100}, NoValidHost),
        ({"tags": (("aws:mine", "x"),)}, InvalidParameter),
        ({"tags": (("", "x"),)}, InvalidParameter),
    ],
)
def test_bad_requests_leave_nothing_behind(site: TestCloud, change: dict[str, Any], error: type[CloudError]) -> None:
    with pytest.raises(error):
        site.launch(**change)
    assert site.views() == []
    assert site.cloud.read(lambda tx: tx.session.query(InstanceEvent).count()) == 0
    assert site.cloud.read(lambda tx: tx.session.query(Project.used_instances).scalar()) == 0
    assert site.bus.take(ScheduleReservation) == []


def test_quota_says_what_is_used_and_what_was_asked(site: TestCloud) -> None:
    site.cloud.write(lambda tx: projects.set_quota(tx, "demo", instances=3))
    site.launch(2)
    with pytest.raises(QuotaExceeded, match="is 3; 2 are used and 2 more"):
        site.launch(2)
    assert len(site.launch(min_count=1, max_count=5)) == 1


def test_a_small_network_reuses_its_addresses(site: TestCloud) -> None:
    small = TestCloud.create(site.cloud.settings.state_dir / "small", network__project_prefix_length=28)
    small.heartbeat()
    ids = small.launch(13)
    with pytest.raises(NoFreeAddress, match="has 13 free addresses; 14 were asked for"):
        TestCloud.launch(small, 14)
    place(small)
    before = {v.ip for v in small.views()}
    assert len(before) == 13
    with pytest.raises(NoFreeAddress, match="has 0 free"):
        small.launch(1)
    small.cloud.write(lambda tx: actions.terminate(tx, small.project_id, ids[:2]))
    small.report(ids[:2], Event.GONE)
    again = small.launch(2)
    place(small)
    assert {v.ip for v in small.views(again)} <= before
    small.close()


def test_a_host_out_of_service_takes_nothing_new(site: TestCloud) -> None:
    site.cloud.write(lambda tx: hosts.set_mode(tx, "h1", HostMode.DISABLED))
    with pytest.raises(NoValidHost, match="1 of 1 hosts: disabled"):
        site.launch(1)


def test_what_was_accepted_and_fits_no_more_ends_with_the_reason(site: TestCloud) -> None:
    ids = site.launch(2)
    site.cloud.write(lambda tx: hosts.set_mode(tx, "h1", HostMode.DRAINING))
    assert place(site) == [0]
    assert site.states(ids) == [State.ERROR] * 2
    reason = site.instance(ids[0]).reason
    assert "no host fits" in reason
    assert "1 by in_service (draining)" in reason
    assert site.instance(ids[0]).reason_code == "no_capacity"
    assert site.cloud.read(lambda tx: projects.get_project(tx, "demo").used_instances) == 0
    site.cloud.write(lambda tx: actions.terminate(tx, None, ids))
    assert site.states(ids) == [State.DELETED] * 2


def test_one_transaction_for_the_whole_batch_is_spread_over_hosts(site: TestCloud) -> None:
    for n in range(2, 5):
        site.heartbeat(f"h{n}")
    ids = site.launch(40)
    assert place(site) == [40]
    on = [site.instance(i).host_id for i in ids]
    assert {h: on.count(h) for h in set(on)} == {"h1": 10, "h2": 10, "h3": 10, "h4": 10}


def test_deleting_before_placement_claims_nothing(site: TestCloud) -> None:
    ids = site.launch(2)
    site.cloud.write(lambda tx: actions.terminate(tx, site.project_id, ids))
    assert site.states(ids) == [State.DELETED] * 2
    assert place(site) == [0]
    assert site.cloud.read(lambda tx: tx.session.query(Host.vcpus_used).scalar()) == 0


def test_user_data_and_tags_are_kept(site: TestCloud) -> None:
    data = base64.b64encode(b"#!/bin/sh\n").decode()
    ids = site.launch(2, user_data=data, tags=(("Name", "web"),))
    assert site.cloud.read(lambda tx: tx.session.get_one(Instance, ids[1]).launch_index) == 1
    assert site.bus.take(ReconcileGuests) == []
