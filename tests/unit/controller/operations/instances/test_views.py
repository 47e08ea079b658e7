"""Instances as doors and commands show them."""

from dataclasses import fields
from datetime import timedelta

import pytest

from controller.db.models import Instance
from controller.domain.errors import InstanceNotFound
from controller.domain.states import Event, State
from controller.operations.instances import views
from controller.operations.instances.launch import just_launched, launch
from controller.operations.instances.locking import LockedInstance
from controller.operations.instances.transitions import lock_instances, transition
from controller.operations.instances.views import InstanceView
from tests.labs.cloud import TestCloud


def test_row_locked_form_and_view_name_their_fields_alike() -> None:
    columns = {c.key for c in Instance.__table__.columns}
    assert {f.name for f in fields(LockedInstance)} <= columns
    elsewhere = set(InstanceView._fields) - columns
    assert elsewhere == {
        *("client_token", "architecture", "host_zone", "hypervisor", "group_name"),
        *("ip", "mac", "dns_name", "tags"),
    }


def test_what_was_just_launched_is_as_it_is_read(site: TestCloud) -> None:
    request = site.request(3, client_token="t", key_name="", tags=(("a", "1"), ("b", "2")))
    launched = site.cloud.write(lambda tx: launch(tx, request))
    read = site.cloud.read(lambda tx: views.instances_of(tx, site.project_id, launched.reservation.id))
    assert just_launched(launched, request) == read


def test_pages_follow_each_other(site: TestCloud) -> None:
    ids = site.launch(5)
    first = site.cloud.read(lambda tx: views.list_instances(tx, site.project_id, limit=2))
    rest = site.cloud.read(lambda tx: views.list_instances(tx, site.project_id, after=first[-1].position))
    assert [v.id for v in first + rest] == ids


def test_an_unknown_id_is_named(site: TestCloud) -> None:
    ids = site.launch(1)
    with pytest.raises(InstanceNotFound, match="'i-1, i-2'"):
        site.cloud.read(lambda tx: views.get_instances(tx, site.project_id, [*ids, "i-1", "i-2"]))
    with pytest.raises(InstanceNotFound, match=ids[0]):
        site.cloud.read(lambda tx: views.get_instance(tx, "another", ids[0]))


def test_deleted_instances_are_listed_for_a_while(site: TestCloud) -> None:
    (one,) = site.launch(1)
    site.cloud.write(lambda tx: transition(tx, lock_instances(tx, [one]), Event.DELETE))
    assert site.cloud.read(views.count_by_state) == {State.DELETED: 1}
    assert [v.id for v in site.views()] == [one]
    site.clock.now += timedelta(seconds=site.cloud.settings.api.deleted_visible_s + 1)
    assert site.views() == []
