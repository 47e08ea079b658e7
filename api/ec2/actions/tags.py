"""CreateTags, DeleteTags, DescribeTags."""

from collections.abc import Mapping
from types import MappingProxyType

from api.ec2.actions.context import Context, Parameters, Result
from api.ec2.actions.listing import page_of
from api.ec2.actions.tag_specifications import read_tags
from api.ec2.protocol.filters import ValuesOf, compile_filters
from controller.domain.errors import MissingParameter
from controller.operations.accounts import tags
from controller.operations.accounts.tags import TagView


def create_tags(context: Context, params: Parameters) -> Result:
    """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateTags.html"""
    resources, wanted = list(dict.fromkeys(params["Resources"])), read_tags(params["Tags"])
    context.cloud.write(lambda tx: tags.create_tags(tx, context.project_id, resources, wanted))
    return {}


def delete_tags(context: Context, params: Parameters) -> Result:
    """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DeleteTags.html

    A tag without a value goes whatever its value is, one with a value (an empty one too) only where it is the same.
    """
    resources = list(dict.fromkeys(params["Resources"]))
    wanted: list[tuple[str, str | None]] = []
    for entry in params.get("Tags", ()):
        if not entry.get("Key"):
            raise MissingParameter(parameter="Tag.Key")
        wanted.append((entry["Key"], entry.get("Value")))
    context.cloud.write(lambda tx: tags.delete_tags(tx, context.project_id, resources, wanted))
    return {}


def describe_tags(context: Context, params: Parameters) -> Result:
    """https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeTags.html"""
    matches = compile_filters(params.get("Filters", ()), _FILTERS, lambda t: {t.key: t.value})
    rows = context.cloud.read(lambda tx: tags.list_tags(tx, context.project_id))
    items, token = page_of(context, params, (t for t in rows if matches(t)), lambda t: f"{t.resource_id}/{t.key}")
    shown = [
        {"ResourceId": t.resource_id, "ResourceType": t.resource_type, "Key": t.key, "Value": t.value} for t in items
    ]
    return {"Tags": shown, "NextToken": token}


_FILTERS: Mapping[str, ValuesOf[TagView]] = MappingProxyType(
    {
        "key": lambda t: (t.key,),
        "resource-id": lambda t: (t.resource_id,),
        "resource-type": lambda t: (t.resource_type,),
        "value": lambda t: (t.value,),
    }
)
