"""Images as doors and commands show them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import or_, select

from controller.db.bulk import among
from controller.db.models import Image
from controller.domain.checks import check_all_found
from controller.domain.errors import ImageNotFound
from controller.domain.images import ImageState
from controller.operations.accounts.tags import tags_of
from controller.operations.cloud import Transaction

_NO_TAGS: Mapping[str, str] = {}


@dataclass(frozen=True)
class ImageView:
    """An image with its tags; ``hypervisor`` empty: any, ``required_labels`` with commas in between."""

    id: str
    project_id: str
    name: str
    description: str
    public: bool
    state: str
    format: str
    sha256: str
    size_bytes: int
    virtual_size_bytes: int
    architecture: str
    hypervisor: str
    min_memory_mib: int
    min_disk_gib: int
    required_labels: str
    created_at: datetime
    tags: Mapping[str, str]


_COLUMNS: tuple[Any, ...] = tuple(getattr(Image, f.name) for f in fields(ImageView) if f.name != "tags")


def list_images(
    tx: Transaction, project_id: str | None = None, ids: Sequence[str] | None = None
) -> Sequence[ImageView]:
    """The images that a project may use, with its own tags, the oldest first; None: all of them. Two statements.

    Raises:
        ImageNotFound: one of ``ids`` is not among them.
    """
    query = select(*_COLUMNS).where(Image.state == ImageState.AVAILABLE).order_by(Image.created_at, Image.id)
    if project_id is not None:
        query = query.where(or_(Image.public, Image.project_id == project_id))
    if ids is not None:
        query = query.where(among(Image.id, ids))
    rows = tx.session.execute(query).all()
    check_all_found(ids or (), {row.id for row in rows}, ImageNotFound)
    tags = tags_of(tx, project_id, "image")
    return [ImageView(**row._mapping, tags=tags.get(row.id, _NO_TAGS)) for row in rows]
