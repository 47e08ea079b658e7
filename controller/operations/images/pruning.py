"""Image files that nothing needs any more: found in the store, and in the caches of hosts.

A file is needed while an image that can be booted has it, while an instance that is not DELETED was made of such an
image (its host may have to fetch it again), and for a while after its image was deregistered: a launch that read the
image just before may still be under way. An agent keeps what it needs in any case: an image that an overlay is over, or
that is being fetched.
"""

import math
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TextIO

import structlog
from sqlalchemy import func, select

from controller.conf.settings import Settings
from controller.db.bulk import among
from controller.db.models import Host, Image, Instance
from controller.domain.images import ImageState
from controller.domain.messages import RemoveImages
from controller.domain.states import State
from controller.locks import lock, try_lock
from controller.operations.cloud import Cloud, Transaction
from controller.operations.instances.locking import chunks

log = structlog.get_logger(__name__)

_FILE = re.compile(r"(?P<sha256>[0-9a-f]{64})\.(qcow2|raw)", re.ASCII)
_LOCK = ".lock"
# No launch takes longer from reading its image to its commit.
LAUNCH_S = 120
# The version of the messages with which RemoveImages came.
_SPOKEN_SINCE = 2


@dataclass(frozen=True)
class StoredFile:
    """A file of the store; ``needed_by`` says what for, empty: it is to go."""

    name: str
    size_bytes: int
    needed_by: str


def prune(cloud: Cloud, *, after_s: float = LAUNCH_S, unknown: bool = False, dry_run: bool = False) -> list[StoredFile]:
    """Remove the files of this machine's store that nothing has needed for ``after_s``; answers what there is and why
    it stays.

    A file that no image has ever had, as far as the rows tell, goes only with ``unknown``: after a database was
    restored from a backup, it may be an image that was imported since. Another run, or an import that registers what it
    has stored, is not waited for: the next run does it.
    """
    store = cloud.settings.image_store
    if not store.is_dir():
        return []
    with store_lock(cloud.settings, exclusive=True) as locked:
        found = cloud.read(lambda tx: _files(tx, store, after_s, unknown))
        if not locked:
            return [replace(file, needed_by=file.needed_by or "the store is in use by an import") for file in found]
        if dry_run:
            return found
        for file in found:
            if not file.needed_by:
                (store / file.name).unlink(missing_ok=True)
                log.info("image file removed from the store", file=file.name, size_bytes=file.size_bytes)
    return found


def prune_caches(tx: Transaction, *, after_s: float = LAUNCH_S) -> int:
    """Tell every host that is up which images of its cache nothing needs; answers how many hosts were told."""
    gone = _deregistered(tx, after_s)
    if not gone:
        return 0
    may_read = Host.speaks >= _SPOKEN_SINCE
    rows = tx.session.execute(select(Host.id, Host.images).where(Host.up, may_read, Host.images != ""))
    told = 0
    for host_id, images in rows:
        if unneeded := sorted(gone.intersection((images or "").split(","))):
            tx.outbox.append(RemoveImages(host_id, tuple(unneeded)))
            told += 1
    return told


@contextmanager
def store_lock(settings: Settings, *, exclusive: bool = False) -> Iterator[bool]:
    """Hold the store: many imports at once that register what they have stored, or one that removes files.

    ``exclusive`` does not wait: False if an import holds it.
    """
    with _open_lock(settings.image_store / _LOCK) as file:
        yield try_lock(file) if exclusive else lock(file, math.inf, shared=True)


def _open_lock(path: Path) -> TextIO:
    try:
        return path.open("a")
    except PermissionError:  # of another user, who was the first to import: to read it is enough
        return path.open()


def _files(tx: Transaction, store: Path, after_s: float, unknown: bool) -> list[StoredFile]:
    stored = [(entry, match["sha256"]) for entry in os.scandir(store) if (match := _FILE.fullmatch(entry.name))]
    needed = _needed(tx, {sha256 for _, sha256 in stored}, after_s)
    known = _known(tx, {sha256 for _, sha256 in stored})
    found = []
    for entry, sha256 in stored:
        try:
            status = entry.stat()
        except FileNotFoundError:
            continue  # another run removes files
        why = needed.get(sha256, "")
        if not why and tx.now - datetime.fromtimestamp(status.st_mtime, UTC) < timedelta(seconds=after_s):
            why = f"stored less than {after_s:g} s ago"
        elif sha256 not in known and not unknown:
            why = "no image has it; `pileus image prune` removes it"
        found.append(StoredFile(entry.name, status.st_size, why))
    return sorted(found, key=lambda file: file.name)


def _known(tx: Transaction, checksums: Collection[str]) -> set[str]:
    """Those that some image has or had."""
    found: set[str] = set()
    for chunk in chunks(sorted(checksums)):
        found |= set(tx.session.scalars(select(Image.sha256).where(among(Image.sha256, chunk))))
    return found


def _needed(tx: Transaction, checksums: Collection[str], after_s: float) -> dict[str, str]:
    """What needs the images with these checksums, by checksum."""
    found: dict[str, str] = {}
    for chunk in chunks(sorted(checksums)):
        rows = tx.session.execute(
            select(Image.sha256, Image.state, Image.deregistered_at, func.count(Instance.id))
            .outerjoin(Instance, (Instance.image_id == Image.id) & (Instance.state != State.DELETED))
            .where(among(Image.sha256, chunk))
            .group_by(Image.id, Image.sha256, Image.state, Image.deregistered_at)
        )
        for sha256, state, deregistered_at, instances in rows:
            if why := _why(tx, state, deregistered_at, instances, after_s):
                found[sha256] = why
    return found


def _why(tx: Transaction, state: str, deregistered_at: datetime | None, instances: int, after_s: float) -> str:
    if state != ImageState.DEREGISTERED:
        return "a registered image"
    if instances:
        return f"{instances} instance{'s' * (instances != 1)}"
    if deregistered_at is not None and tx.now - deregistered_at < timedelta(seconds=after_s):
        return f"deregistered less than {after_s:g} s ago"
    return ""


def _deregistered(tx: Transaction, after_s: float) -> set[str]:
    """The checksums of deregistered images that nothing needs."""
    checksums = set(tx.session.scalars(select(Image.sha256).where(Image.state == ImageState.DEREGISTERED)))
    return checksums - set(_needed(tx, checksums, after_s))
