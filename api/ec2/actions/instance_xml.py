"""Instances in EC2's XML, for lists of thousands: the text that many have in common is made once.

Two instances of the same image, type, zone, network, state and tags differ in a few elements only. The text around
these is kept, and an instance of the list costs no more than putting its own values in between.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from itertools import groupby
from typing import Any

from api.ec2.actions.instance_shape import instance, private_dns_name, state_transition_reason
from api.ec2.protocol.model import Shape, operation
from api.ec2.protocol.response import Fragment, escape, fragment
from api.ec2.protocol.timestamps import format_moment
from controller.conf.settings import Settings
from controller.operations.instances.views import InstanceView

_moment = lru_cache(maxsize=4096)(format_moment)
# The elements in which an instance differs from others like it. User text is escaped, so nothing else looks so.
_OWN: Mapping[str, Callable[[InstanceView, Settings], str]] = {
    "instanceId": lambda i, _: i.id,
    "privateDnsName": private_dns_name,
    "reason": state_transition_reason,
    "amiLaunchIndex": lambda i, _: str(i.launch_index),
    "launchTime": lambda i, _: _moment(i.created_at),
    "privateIpAddress": lambda i, _: i.ip,
    "clientToken": lambda i, _: i.client_token or "",
}
_OWN_ELEMENTS = re.compile(rf"<({'|'.join(_OWN)})>([^<]*)</")
_MAX_TEMPLATES = 4096
_Template = tuple[tuple[str, Callable[[InstanceView, Settings], str] | None], ...]


_templates: dict[tuple[Any, ...], _Template] = {}


def write_instance(item: InstanceView, settings: Settings) -> Fragment:
    """The inside of EC2's ``Instance``: the same as ``fragment`` of ``instance_shape.instance``."""
    key = _likeness(item, settings)
    template = _templates.get(key)
    if template is None:
        if len(_templates) >= _MAX_TEMPLATES:
            _templates.clear()
        template = _templates[key] = _template(fragment(_shape(), instance(item, settings)).xml)
    return Fragment("".join(text if own is None else text + escape(own(item, settings)) for text, own in template))


def reservations(items: Sequence[InstanceView], settings: Settings) -> list[dict[str, Any]]:
    """EC2's ``Reservation`` for neighbours of the same one; ``items`` in the order of the lists."""
    return [
        {
            "ReservationId": reservation_id,
            "OwnerId": group[0].project_id,
            "Groups": [],
            "Instances": [write_instance(i, settings) for i in group],
        }
        for reservation_id, group in ((key, list(run)) for key, run in groupby(items, key=lambda i: i.reservation_id))
    ]


def _template(xml: str) -> _Template:
    """The text before each own element's value, with what gives that value; at the end the rest."""
    pieces: list[tuple[str, Callable[[InstanceView, Settings], str] | None]] = []
    begin = 0
    for found in _OWN_ELEMENTS.finditer(xml):
        pieces.append((xml[begin : found.start(2)], _OWN[found[1]]))
        begin = found.end(2)
    return (*pieces, (xml[begin:], None))


@cache
def _shape() -> Shape:
    model = operation("DescribeInstances")
    assert model is not None
    return model.output_shape.members["Reservations"].member.members["Instances"].member


def _likeness(item: InstanceView, settings: Settings) -> tuple[Any, ...]:
    """All that an instance's text depends on, but for its own values; whether it has an address decides if there is
    an element for it."""
    return (
        settings.api.zone,
        item.project_id,
        item.state,
        item.reason_code,
        item.reason,
        item.image_id,
        item.instance_type,
        item.vcpus,
        item.key_name,
        item.zone,
        item.network_id,
        item.architecture,
        item.host_zone,
        item.hypervisor,
        item.group_name,
        bool(item.ip),
        tuple(item.tags.items()) if item.tags else (),
    )
