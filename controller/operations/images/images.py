"""Images: inspected, copied into the store under their checksum, then registered."""

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from controller.conf.settings import Settings
from controller.db.models import Image
from controller.domain.checks import check_name, check_number
from controller.domain.errors import ImageNotFound, ImageRejected, InvalidParameter
from controller.domain.host_facts import check_labels
from controller.domain.ids import IMAGE
from controller.domain.image_format import HEADER_BYTES, ImageInfo, inspect_header
from controller.domain.images import ImageState
from controller.files import sync_folder
from controller.operations.accounts import tags
from controller.operations.cloud import Cloud, Transaction
from controller.operations.images.pruning import store_lock

ARCHITECTURES = ("x86_64", "aarch64")
HYPERVISORS = ("", "kvm", "qemu", "xen", "simulated")
_CHUNK = 4 * 1024 * 1024
_UNDER_WAY, _ABANDONED_S = ".import-", 24 * 3600


def import_image(
    cloud: Cloud,
    path: Path,
    *,
    name: str,
    project_id: str,
    public: bool = False,
    description: str = "",
    architecture: str = "x86_64",
    hypervisor: str = "",
    min_memory_mib: int = 0,
    min_disk_gib: int = 0,
    required_labels: Iterable[str] = (),
) -> Image:
    """Check an image file, copy it into the store and register it. The same file is stored once.

    Its instances run only on hosts that have all of ``required_labels``.

    Raises:
        ImageRejected: see ``inspect_header``; too large; not a regular file.
        InvalidParameter: no name, an unknown architecture or hypervisor.
    """
    check_name("name", name)
    check_number("min_memory_mib", min_memory_mib, 0)
    check_number("min_disk_gib", min_disk_gib, 0)
    if architecture not in ARCHITECTURES:
        reason = f"it must be one of {', '.join(ARCHITECTURES)}"
        raise InvalidParameter(parameter="architecture", value=architecture, reason=reason)
    if hypervisor not in HYPERVISORS:
        reason = f"it must be one of {', '.join(HYPERVISORS[1:])}, or nothing for any"
        raise InvalidParameter(parameter="hypervisor", value=hypervisor, reason=reason)
    _remove_abandoned(cloud.settings.image_store, cloud.clock().timestamp())
    labels = tuple(sorted(set(required_labels)))
    check_labels(labels)

    def register(tx: Transaction, info: ImageInfo, sha256: str, size_bytes: int) -> Image:
        image = Image(
            id=tx.ids.new(IMAGE),
            project_id=project_id,
            name=name,
            description=description,
            public=public,
            state=ImageState.AVAILABLE,
            format=info.format,
            sha256=sha256,
            size_bytes=size_bytes,
            virtual_size_bytes=info.virtual_size_bytes,
            architecture=architecture,
            hypervisor=hypervisor,
            min_memory_mib=min_memory_mib,
            min_disk_gib=min_disk_gib,
            required_labels=",".join(labels),
            created_at=tx.now,
        )
        tx.session.add(image)
        return image

    with _copied(cloud.settings, path) as (info, sha256, size_bytes):
        return cloud.write(lambda tx: register(tx, info, sha256, size_bytes))


def get_image(tx: Transaction, project_id: str | None, image_id: str) -> Image:
    """One image. Raises ImageNotFound, also for another project's private one."""
    image = tx.session.get(Image, image_id)
    if image is None or not (project_id is None or image.public or image.project_id == project_id):
        raise ImageNotFound(id=image_id)
    return image


def deregister(tx: Transaction, project_id: str | None, image_id: str) -> Image:
    """Take an image out of the catalogue; instances that were made of it stay, and its file while one of
    them needs it (``pruning``)."""
    image = get_image(tx, project_id, image_id)
    if project_id is not None and image.project_id != project_id:
        raise ImageNotFound(id=image_id)
    if image.state != ImageState.DEREGISTERED:
        image.state, image.deregistered_at = ImageState.DEREGISTERED, tx.now
    tags.forget(tx, [image_id])
    return image


def stored_file(settings: Settings, sha256: str, fmt: str) -> Path:
    """Where the store keeps a file."""
    return settings.image_store / f"{sha256}.{fmt}"


def _remove_abandoned(store: Path, now_s: float) -> None:
    """Remove the files that killed imports have left: they have not been written to for a day."""
    for file in store.glob(f"{_UNDER_WAY}*"):
        with suppress(FileNotFoundError):
            if now_s - file.stat().st_mtime > _ABANDONED_S:
                file.unlink()


@contextmanager
def _copied(settings: Settings, path: Path) -> Iterator[tuple[ImageInfo, str, int]]:
    """A file of the store, inspected and copied in one reading, so that what was inspected is what is stored; until the
    block ends it is not taken for one that nothing needs."""
    if not path.is_file():
        raise ImageRejected(reason=f"{path} is not a regular file")
    settings.image_store.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=settings.image_store, prefix=_UNDER_WAY)
    try:
        with path.open("rb") as source, os.fdopen(descriptor, "wb") as target:
            info, sha256, size_bytes = _copy(settings, source.fileno(), target.fileno())
            os.fsync(target.fileno())
        final = stored_file(settings, sha256, info.format)
        Path(temporary).chmod(0o644)
        with store_lock(settings):
            Path(temporary).replace(final)
            sync_folder(settings.image_store)
            yield info, sha256, size_bytes
    finally:
        Path(temporary).unlink(missing_ok=True)


def _copy(settings: Settings, source: int, target: int) -> tuple[ImageInfo, str, int]:
    expected = os.fstat(source).st_size
    if expected > settings.images.max_bytes:
        raise ImageRejected(reason=f"it has {expected} bytes, [images] max_bytes is {settings.images.max_bytes}")
    info = inspect_header(os.pread(source, HEADER_BYTES, 0), expected)
    if info.virtual_size_bytes > settings.images.max_virtual_bytes:
        limit = settings.images.max_virtual_bytes
        raise ImageRejected(
            reason=f"its disk has {info.virtual_size_bytes} bytes, [images] max_virtual_bytes is {limit}"
        )
    digest = hashlib.sha256()
    size = 0
    while chunk := os.read(source, _CHUNK):
        size += len(chunk)
        if size == len(chunk) and inspect_header(chunk[:HEADER_BYTES], expected) != info:
            raise ImageRejected(reason="it changed while it was read")
        digest.update(chunk)
        _write(target, chunk) if chunk.strip(b"\0") else os.lseek(target, len(chunk), os.SEEK_CUR)
    os.ftruncate(target, size)
    if size != expected:
        raise ImageRejected(reason="it changed while it was read")
    return info, digest.hexdigest(), size


def _write(target: int, chunk: bytes) -> None:
    """All of it: a disk that is nearly full takes a part without an error."""
    rest = memoryview(chunk)
    while rest:
        rest = rest[os.write(target, rest) :]
