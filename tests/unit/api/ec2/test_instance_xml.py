"""Instances written from a kept text are written as they would be alone."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from api.ec2.actions.instance_shape import instance
from api.ec2.actions.instance_xml import _shape, write_instance
from api.ec2.protocol.response import fragment
from controller.domain.states import State
from controller.operations.instances.views import InstanceView
from tests.labs.cloud import make_settings

_SETTINGS = make_settings(Path("/nowhere"))
_TEXT = st.text(max_size=12) | st.sampled_from(["", "<instanceId>i-1</instanceId>", "</privateIpAddress>", "a&b"])


@st.composite
def described(draw: st.DrawFn) -> InstanceView:
    ip = draw(st.sampled_from(["", "10.0.0.4", "10.0.0.5"]))
    tags = draw(st.dictionaries(_TEXT, _TEXT, max_size=2))
    return InstanceView(
        id=draw(st.sampled_from(["i-0", "i-1"])),
        reservation_id="r-1",
        launch_index=draw(st.integers(0, 9)),
        generation=1,
        memory_mib=128,
        disk_gib=1,
        shutdown_behavior="stop",
        launched_at=None,
        deleted_at=None,
        project_id="p-1",
        state=draw(st.sampled_from([State.ACTIVE, State.ERROR, State.REQUESTED, State.STOPPED, State.DELETED])),
        state_since=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=draw(st.integers(0, 99))),
        reason_code=draw(st.sampled_from(["", "Server.InternalError"])),
        reason=draw(_TEXT),
        image_id="ami-1",
        instance_type="m1.small",
        vcpus=draw(st.integers(1, 2)),
        key_name=draw(_TEXT),
        zone="",
        network_id="net-1",
        host_id=None,
        created_at=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=draw(st.integers(0, 99))),
        client_token=draw(_TEXT | st.none()),
        architecture="x86_64",
        host_zone=draw(st.sampled_from([None, "east"])),
        hypervisor=draw(st.sampled_from([None, "kvm", "xen"])),
        group_name=draw(_TEXT | st.none()),
        ip=ip,
        dns_name=draw(st.sampled_from(["", "web"])) if ip else "",
        tags=tags,
    )


@settings(max_examples=300, deadline=None)
@given(st.lists(described(), min_size=1, max_size=5))
def test_each_is_written_as_it_would_be_alone(items: list[InstanceView]) -> None:
    for item in items:
        assert write_instance(item, _SETTINGS).xml == fragment(_shape(), instance(item, _SETTINGS)).xml
