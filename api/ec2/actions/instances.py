"""DescribeInstances and DescribeInstanceStatus."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from api.ec2.actions.context import Context, Parameters, Result
from api.ec2.actions.identifiers import instance_ids
from api.ec2.actions.instance_shape import instance_filters, zone_of
from api.ec2.actions.instance_xml import reservations
from api.ec2.actions.listing import fixed
from api.ec2.protocol.filters import ValuesOf, compile_filters
from api.ec2.protocol.paging import encode_token, page_size, position_of
from api.ec2.states import RUNNING, ec2_state, state, status_checks
from controller.domain.errors import InvalidPage
from controller.operations.cloud import Transaction
from controller.operations.instances.views import InstanceView, Position, get_instances, list_instances


def describe_instances(context: Context, params: Parameters) -> Result:
    """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstances.html"""
    settings = context.cloud.settings
    wanted = compile_filters(params.get("Filters", ()), instance_filters(settings), lambda i: i.tags)
    items, token = _page(context, params, wanted if params.get("Filters") else None)
    return {"Reservations": reservations(items, settings), "NextToken": token}


def describe_instance_status(context: Context, params: Parameters) -> Result:
    """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstanceStatus.html"""
    settings = context.cloud.settings
    known: dict[str, ValuesOf[InstanceView]] = {
        name: values for name, values in instance_filters(settings).items() if name in _SHARED_FILTERS
    }
    matches = compile_filters(params.get("Filters", ()), {**known, **_STATUS_FILTERS}, lambda i: i.tags)
    everything = params.get("IncludeAllInstances", False)
    items, token = _page(context, params, lambda i: (everything or ec2_state(i.state) == RUNNING) and matches(i))
    return {"InstanceStatuses": [_status(i, zone_of(i, settings)) for i in items], "NextToken": token}


def _page(
    context: Context, params: Parameters, matches: Callable[[InstanceView], bool] | None
) -> tuple[list[InstanceView], str | None]:
    """The instances that a call is to show, and the token of the next page where there is one."""
    size = page_size(params, ids="InstanceIds")
    after = read_position(position_of(context.action, params))
    ids = instance_ids(params["InstanceIds"]) if params.get("InstanceIds") else None
    # What is filtered here cannot be counted by the database.
    limit = size + 1 if size is not None and matches is None else None

    def read(tx: Transaction) -> list[InstanceView]:
        if ids is not None:
            return get_instances(tx, context.project_id, ids)
        return list_instances(tx, context.project_id, after=after, limit=limit)

    items = context.cloud.read(read)
    if matches is not None:
        items = [i for i in items if matches(i)]
    if size is None or len(items) <= size:
        return items, None
    shown = items[:size]
    return shown, encode_token(context.action, params, position_text(shown[-1].position))


def position_text(position: Position) -> str:
    """A position for a page's token."""
    return f"{position.created_at.isoformat()}/{position.reservation_id}/{position.launch_index}"


def read_position(text: str | None) -> Position | None:
    """What ``position_text`` was given; a token grants nothing, so a forged one is harmless. Raises InvalidPage."""
    if text is None:
        return None
    try:
        at, reservation_id, index = text.split("/")
        moment = datetime.fromisoformat(at)
        position = Position(moment.astimezone(UTC), reservation_id, int(index[:9]))
    except (ValueError, OverflowError) as error:
        raise InvalidPage from error
    if moment.tzinfo is None or not (reservation_id.isascii() and reservation_id.isprintable()):
        raise InvalidPage
    return position


def _status(item: InstanceView, zone: str) -> dict[str, Any]:
    status, reachability = status_checks(item.state)
    summary: dict[str, Any] = {"Status": status}
    if reachability:
        since = item.state_since if reachability == "failed" else None
        summary["Details"] = [{"Name": "reachability", "Status": reachability, "ImpairedSince": since}]
    return {
        "InstanceId": item.id,
        "AvailabilityZone": zone,
        "InstanceState": state(item.state),
        "SystemStatus": summary,
        "InstanceStatus": summary,
        "Events": [],
    }


_SHARED_FILTERS = frozenset({"availability-zone", "instance-state-code", "instance-state-name"})
_STATUS_FILTERS: dict[str, ValuesOf[InstanceView]] = {
    "instance-status.status": lambda i: (status_checks(i.state)[0],),
    "instance-status.reachability": lambda i: (status_checks(i.state)[1],),
    "system-status.status": lambda i: (status_checks(i.state)[0],),
    "system-status.reachability": lambda i: (status_checks(i.state)[1],),
    "event.code": fixed(),
}
