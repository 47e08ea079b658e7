"""Tags: a key and a value on any resource."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import delete, func, select

from controller.db.bulk import among
from controller.db.models import Image, Instance, KeyPair, PlacementGroup, Reservation, Tag
from controller.domain.errors import ImageNotFound, InstanceNotFound, InvalidParameter, NotFound, TagLimitExceeded
from controller.operations.cloud import Transaction

MAX_TAGS = 50
_RESOURCE_TYPES = {"i": "instance", "ami": "image", "r": "reservation", "key": "key-pair", "pg": "placement-group"}


class TagView(NamedTuple):
    """A tag of a resource."""

    resource_id: str
    resource_type: str
    key: str
    value: str


def resource_type(resource_id: str) -> str:
    """What EC2 calls the kind of this resource."""
    return _RESOURCE_TYPES.get(resource_id.partition("-")[0], "")


def set_tags(tx: Transaction, project_id: str, resource_id: str, tags: Mapping[str, str]) -> None:
    """Add tags to a resource or replace their values; whether the resource exists is the caller's to know.

    Raises:
        InvalidParameter: a key or value that is too long or reserved.
        TagLimitExceeded
    """
    if not tags:
        return
    for key, value in tags.items():
        _check(key, value)
    existing = {t.key: t for t in tx.session.scalars(select(Tag).where(Tag.resource_id == resource_id))}
    _check_count(resource_id, len(existing.keys() | tags.keys()))
    for key in existing.keys() & tags.keys():
        existing[key].value = tags[key]
    _add(tx, project_id, [resource_id], {k: v for k, v in tags.items() if k not in existing})


def tag_new(tx: Transaction, project_id: str, resource_ids: Sequence[str], tags: Mapping[str, str]) -> None:
    """Tag resources that were made in this transaction and so have no tags yet. See ``set_tags`` for what it raises."""
    for key, value in tags.items():
        _check(key, value)
    if tags and resource_ids:
        _check_count(resource_ids[0], len(tags))
        _add(tx, project_id, resource_ids, tags)


def forget(tx: Transaction, resource_ids: Sequence[str]) -> None:
    """Remove the tags of resources that are gone."""
    tx.session.execute(delete(Tag).where(among(Tag.resource_id, resource_ids)))


def create_tags(tx: Transaction, project_id: str, resource_ids: Sequence[str], tags: Mapping[str, str]) -> None:
    """Tag several resources of a project, all or none.

    Raises:
        NotFound: one of them is not this project's. See also ``set_tags``.
    """
    _check_owned(tx, project_id, resource_ids)
    for resource_id in resource_ids:
        set_tags(tx, project_id, resource_id, tags)


def delete_tags(
    tx: Transaction, project_id: str, resource_ids: Sequence[str], tags: Iterable[tuple[str, str | None]]
) -> None:
    """Remove tags: by key, or only where the value is this; with no tags at all, every tag."""
    _check_owned(tx, project_id, resource_ids)
    wanted = list(tags)
    mine = (Tag.project_id == project_id, among(Tag.resource_id, resource_ids))
    if not wanted:
        tx.session.execute(delete(Tag).where(*mine))
    for key, value in wanted:
        query = delete(Tag).where(*mine, Tag.key == key)
        tx.session.execute(query if value is None else query.where(Tag.value == value))


def list_tags(tx: Transaction, project_id: str) -> Sequence[TagView]:
    """All tags of a project, by resource and key."""
    query = select(Tag.resource_id, Tag.resource_type, Tag.key, Tag.value).where(Tag.project_id == project_id)
    return [TagView(*row) for row in tx.session.execute(query.order_by(Tag.resource_id, Tag.key))]


def tags_of(
    tx: Transaction, project_id: str | None, resource_type: str, ids: Sequence[str] | None = None
) -> dict[str, dict[str, str]]:
    """The tags of the resources of one type, resource id -> key -> value; ``project_id`` None: of all projects."""
    query = select(Tag.resource_id, Tag.key, Tag.value).where(Tag.resource_type == resource_type)
    if project_id is not None:
        query = query.where(Tag.project_id == project_id)
    if ids is not None:
        query = query.where(among(Tag.resource_id, ids))
    found: dict[str, dict[str, str]] = {}
    for resource_id, key, value in tx.session.execute(query.order_by(Tag.resource_id, Tag.key)):
        found.setdefault(resource_id, {})[key] = value
    return found


def _add(tx: Transaction, project_id: str, resource_ids: Sequence[str], tags: Mapping[str, str]) -> None:
    tx.session.add_all(
        Tag(resource_id=r, key=k, value=v, resource_type=resource_type(r), project_id=project_id)
        for r in resource_ids
        for k, v in tags.items()
    )


def _check_count(resource_id: str, asked: int) -> None:
    if asked > MAX_TAGS:
        raise TagLimitExceeded(limit=MAX_TAGS, id=resource_id, asked=asked)


def _check(key: str, value: str) -> None:
    if not 1 <= len(key) <= 127:
        raise InvalidParameter(parameter="tag_key", value=key[:140], reason="a key has 1 to 127 characters")
    if key.startswith("aws:"):
        raise InvalidParameter(parameter="tag_key", value=key, reason="keys that begin with aws: are reserved")
    if len(value) > 255:
        raise InvalidParameter(
            parameter="tag_value", value=value[:20] + "...", reason="a value has 255 characters at most"
        )


def _check_owned(tx: Transaction, project_id: str, resource_ids: Sequence[str]) -> None:
    owners: dict[str, Any] = {"i": Instance, "ami": Image, "r": Reservation, "key": KeyPair, "pg": PlacementGroup}
    errors = {"i": InstanceNotFound, "ami": ImageNotFound}
    for resource_id in resource_ids:
        prefix = resource_id.partition("-")[0]
        model = owners.get(prefix)
        count = model and tx.session.scalar(
            select(func.count()).select_from(model).where(model.id == resource_id, model.project_id == project_id)
        )
        if not count:
            error = errors.get(prefix)
            raise error(id=resource_id) if error else NotFound(kind="resource", id=resource_id)
