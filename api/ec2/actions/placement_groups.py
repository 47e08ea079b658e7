"""CreatePlacementGroup, DescribePlacementGroups, DeletePlacementGroup."""

from collections.abc import Mapping
from types import MappingProxyType

from api.ec2.actions.context import Context, Parameters, Result, UnsupportedParameter
from api.ec2.actions.instance_shape import tag_list
from api.ec2.actions.tag_specifications import read_tag_specifications
from api.ec2.protocol.filters import ValuesOf, compile_filters
from controller.domain.errors import MissingParameter
from controller.domain.placement_groups import GroupStrategy
from controller.operations.instances import placement_groups
from controller.operations.instances.placement_groups import PlacementGroupView

_KIND = "placement-group"
_UNSUPPORTED = ("PartitionCount", "LinkedGroupId", "ParentGroupId", "Operator")


def create_placement_group(context: Context, params: Parameters) -> Result:
    """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreatePlacementGroup.html"""
    name, strategy = params.get("GroupName", ""), params.get("Strategy", GroupStrategy.CLUSTER.value)
    _refuse_unsupported(params, strategy)
    if not name:
        raise MissingParameter(parameter="GroupName")
    tags = read_tag_specifications(params.get("TagSpecifications", ()), _KIND).get(_KIND, {})
    group = context.cloud.write(
        lambda tx: placement_groups.create_placement_group(tx, context.project_id, name, strategy, tags)
    )
    return {"PlacementGroup": _shape(context, group)}


def describe_placement_groups(context: Context, params: Parameters) -> Result:
    """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribePlacementGroups.html"""
    names, ids = params.get("GroupNames", ()), params.get("GroupIds", ())
    groups = context.cloud.read(
        lambda tx: placement_groups.list_placement_groups(tx, context.project_id, names=names, ids=ids)
    )
    matches = compile_filters(params.get("Filters", ()), _FILTERS, lambda g: g.tags)
    return {"PlacementGroups": [_shape(context, g) for g in groups if matches(g)]}


def delete_placement_group(context: Context, params: Parameters) -> Result:
    """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DeletePlacementGroup.html"""
    name = params.get("GroupName", "")
    if not name:
        raise MissingParameter(parameter="GroupName")
    context.cloud.write(lambda tx: placement_groups.delete_placement_group(tx, context.project_id, name))
    return {}


def _refuse_unsupported(params: Parameters, strategy: str) -> None:
    """Raises: UnsupportedParameter: the group would not be what was asked for."""
    if strategy == "partition":
        raise UnsupportedParameter(parameter="Strategy", reason="there are cluster and spread, not partition")
    if params.get("SpreadLevel", "host") != "host" or (strategy != GroupStrategy.SPREAD and "SpreadLevel" in params):
        raise UnsupportedParameter(parameter="SpreadLevel", reason="a spread group keeps its instances on other hosts")
    for name in _UNSUPPORTED:
        if name in params:
            raise UnsupportedParameter(parameter=name, reason="leave it out")


def _shape(context: Context, group: PlacementGroupView) -> Result:
    region = context.cloud.settings.api.region
    return {
        "GroupName": group.name,
        "GroupId": group.id,
        "GroupArn": f"arn:aws:ec2:{region}:{group.project_id}:placement-group/{group.name}",
        "State": "available",
        "Strategy": group.strategy,
        "SpreadLevel": "host" if group.strategy == GroupStrategy.SPREAD else None,
        "Tags": tag_list(group.tags),
    }


_FILTERS: Mapping[str, ValuesOf[PlacementGroupView]] = MappingProxyType(
    {
        "group-name": lambda g: (g.name,),
        "spread-level": lambda g: ("host",) if g.strategy == GroupStrategy.SPREAD else (),
        "state": lambda _: ("available",),
        "strategy": lambda g: (g.strategy,),
    }
)
