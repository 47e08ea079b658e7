"""CreatePlacementGroup, DescribePlacementGroups, DeletePlacementGroup."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from api.ec2 import queries
from api.ec2.actions.context import Context, Parameters, Result, UnsupportedParameter
from api.ec2.actions.instance_shape import tag_list
from api.ec2.actions.tag_specifications import read_tag_specifications
from api.ec2.protocol.filters import ValuesOf, compile_filters
from controller.db.models import PlacementGroup
from controller.domain.errors import MissingParameter, PlacementGroupNotFound
from controller.domain.placement_groups import GroupStrategy
from controller.operations.accounts.tags import tag_new
from controller.operations.cloud import Transaction
from controller.operations.instances import placement_groups

_KIND = "placement-group"
_UNSUPPORTED = ("PartitionCount", "LinkedGroupId", "ParentGroupId", "Operator")


def create_placement_group(context: Context, params: Parameters) -> Result:
    """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreatePlacementGroup.html"""
    name, strategy = params.get("GroupName", ""), params.get("Strategy", GroupStrategy.CLUSTER.value)
    _refuse_unsupported(params, strategy)
    if not name:
        raise MissingParameter(parameter="GroupName")
    tags = read_tag_specifications(params.get("TagSpecifications", ()), _KIND).get(_KIND, {})

    def add(tx: Transaction) -> PlacementGroup:
        row = placement_groups.create_placement_group(tx, context.project_id, name, strategy)
        tag_new(tx, context.project_id, [row.id], tags)
        return row

    return {"PlacementGroup": _shape(context, context.cloud.write(add), tags)}


def describe_placement_groups(context: Context, params: Parameters) -> Result:
    """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribePlacementGroups.html"""

    def read(tx: Transaction) -> tuple[Sequence[PlacementGroup], dict[str, dict[str, str]]]:
        rows = placement_groups.list_placement_groups(tx, context.project_id)
        return rows, queries.tags_of(tx, context.project_id, _KIND)

    rows, tags = context.cloud.read(read)
    names, ids = params.get("GroupNames", ()), params.get("GroupIds", ())
    if missing := [*(set(names) - {r.name for r in rows}), *(set(ids) - {r.id for r in rows})]:
        raise PlacementGroupNotFound(id=", ".join(sorted(missing)[:20]))
    if names or ids:
        rows = [r for r in rows if r.name in names or r.id in ids]
    matches = compile_filters(params.get("Filters", ()), _FILTERS, lambda g: tags.get(g.id, {}))
    return {"PlacementGroups": [_shape(context, r, tags.get(r.id, {})) for r in rows if matches(r)]}


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


def _shape(context: Context, row: PlacementGroup, tags: Mapping[str, str]) -> Result:
    region = context.cloud.settings.api.region
    return {
        "GroupName": row.name,
        "GroupId": row.id,
        "GroupArn": f"arn:aws:ec2:{region}:{row.project_id}:placement-group/{row.name}",
        "State": "available",
        "Strategy": row.strategy,
        "SpreadLevel": "host" if row.strategy == GroupStrategy.SPREAD else None,
        "Tags": tag_list(tags),
    }


_FILTERS: Mapping[str, ValuesOf[PlacementGroup]] = MappingProxyType(
    {
        "group-name": lambda g: (g.name,),
        "spread-level": lambda g: ("host",) if g.strategy == GroupStrategy.SPREAD else (),
        "state": lambda _: ("available",),
        "strategy": lambda g: (g.strategy,),
    }
)
