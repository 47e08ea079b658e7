"""Base images on this host, by checksum: fetched once, verified, evicted when unused and too many."""

import hashlib
import os
import re
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

import structlog

from compute_agent.driver import Pause
from compute_agent.errors import ImageSourceUnavailable
from compute_agent.storage.backend import BaseImage
from controller.domain.errors import ImageFetchError, ImageRejected
from controller.domain.image_format import HEADER_BYTES, inspect_header
from controller.domain.messages import ImageSpec
from controller.files import sync_folder
from controller.locks import try_lock

log = structlog.get_logger(__name__)

FETCH_TIMEOUT_S = 600.0
_SOCKET_TIMEOUT_S = 20.0
_CHUNK = 1024 * 1024
_SHA256 = re.compile(r"[0-9a-f]{64}")
_FORMATS = ("qcow2", "raw")
_HALF_MADE, _LOCK = ".half-made", ".lock"


class ImageCache:
    """``<folder>/<sha256>.<format>``; used by many threads, and by many processes."""

    def __init__(
        self,
        folder: Path,
        store: Path,
        max_bytes: int,
        in_use: Callable[[], frozenset[int]],
        pause: Pause = time.sleep,
    ) -> None:
        """``store``: the only folder that file URLs may name. ``in_use``: inodes that are not evicted."""
        self._folder = folder
        self._store = store
        self._max_bytes = max_bytes
        self._in_use = in_use
        self._pause = pause
        self._lock = threading.Lock()
        self._fetches: dict[str, threading.Lock] = {}
        self._held: Counter[str] = Counter()

    @contextmanager
    def held(self, image: ImageSpec) -> Iterator[BaseImage]:
        """``fetch`` an image; until the end it is not evicted, although no disk is over it yet."""
        with self._lock:
            self._held[image.sha256] += 1
        try:
            yield self.fetch(image)
        finally:
            with self._lock:
                self._held[image.sha256] -= 1
                self._held += Counter()  # drops the counts of zero

    def fetch(self, image: ImageSpec) -> BaseImage:
        """The image's file on this host, fetched unless it is there; other threads that need the same one wait.

        Raises:
            ImageFetchError: another checksum or size, a format that is refused, a URL of another kind.
            ImageSourceUnavailable: its source does not answer now.
        """
        if not _SHA256.fullmatch(image.sha256) or image.format not in _FORMATS:
            raise ImageFetchError(image=image.image_id, reason="its checksum or format is malformed")
        path = self._folder / f"{image.sha256}.{image.format}"
        if not path.exists():
            self._folder.mkdir(mode=0o711, parents=True, exist_ok=True)
            with self._one_at_a_time(image):
                if not path.exists():
                    self._fetch(image, path)
        return _inspect(image, path)

    def images(self) -> tuple[str, ...]:
        """The checksums of what is here."""
        if not self._folder.is_dir():
            return ()
        return tuple(sorted(p.stem for p in self._folder.iterdir() if _SHA256.fullmatch(p.stem) and _is_image(p)))

    def evict(self) -> None:
        """Remove images that are neither held nor under a guest's disk, the longest unused first, until the rest fits;
        and what killed fetches have left."""
        if not self._folder.is_dir():
            return
        for half_made in self._folder.glob(f"*{_HALF_MADE}"):
            with half_made.with_suffix(_LOCK).open("w") as file:
                if try_lock(file):
                    half_made.unlink(missing_ok=True)
        with self._lock:  # a disk over an image is in use before the image is held no longer
            self._make_room()

    def remove(self, checksums: Collection[str]) -> None:
        """Remove these images, except those that are held or that a guest's disk is over."""
        if not self._folder.is_dir():
            return
        with self._lock:  # see evict
            used = self._in_use()
            for path in self._folder.iterdir():
                if path.stem not in checksums or not _is_image(path) or self._held[path.stem]:
                    continue
                status = path.stat()
                if status.st_ino not in used:
                    path.unlink(missing_ok=True)
                    log.info("image removed", image=path.name, size_bytes=status.st_size)

    def _make_room(self) -> None:
        found = [(p, p.stat()) for p in self._folder.iterdir() if _is_image(p)]
        total = sum(s.st_size for _, s in found)
        used = self._in_use() if total > self._max_bytes else frozenset()
        for path, status in sorted(found, key=lambda f: f[1].st_atime):
            if total <= self._max_bytes:
                break
            if status.st_ino not in used and not self._held[path.stem]:
                path.unlink(missing_ok=True)
                total -= status.st_size
                log.info("image evicted", image=path.name, size_bytes=status.st_size)

    @contextmanager
    def _one_at_a_time(self, image: ImageSpec) -> Iterator[None]:
        with self._lock:
            lock = self._fetches.setdefault(image.sha256, threading.Lock())
        deadline = time.monotonic() + FETCH_TIMEOUT_S
        while not lock.acquire(timeout=0.2):
            self._wait_on(image, deadline)
        try:
            with (self._folder / f"{image.sha256}{_LOCK}").open("w") as file:
                while not try_lock(file):
                    self._wait_on(image, deadline, 0.2)
                yield
        finally:
            lock.release()

    def _wait_on(self, image: ImageSpec, deadline: float, pause_s: float = 0) -> None:
        if time.monotonic() > deadline:
            reason = f"the fetch of another guest did not end in {FETCH_TIMEOUT_S:g} s"
            raise ImageSourceUnavailable(image=image.image_id, reason=reason)
        self._pause(pause_s)

    def _fetch(self, image: ImageSpec, path: Path) -> None:
        half_made = path.with_suffix(_HALF_MADE)
        began = time.monotonic()
        try:
            half_made.unlink(missing_ok=True)
            source = self._local_source(image)
            if source is not None and _hard_linked(source, half_made):
                with half_made.open("rb") as file:
                    self._verified(image, file, None)
            else:
                with self._open(image, source) as stream, half_made.open("xb") as output:
                    self._verified(image, stream, output)
                    output.flush()
                    os.fsync(output.fileno())
            _inspect(image, half_made)
            half_made.rename(path)
            sync_folder(self._folder)
        except (HTTPException, OSError) as error:
            raise _source_error(image, error) from error
        finally:
            half_made.unlink(missing_ok=True)
        log.info("image fetched", image=image.image_id, seconds=round(time.monotonic() - began, 2))
        self.evict()

    def _local_source(self, image: ImageSpec) -> Path | None:
        """The file of a file URL, which must lie in the store; None for a URL that is fetched."""
        url = urlsplit(image.url)
        if url.scheme in ("http", "https"):
            return None
        if url.scheme != "file" or url.netloc not in ("", "localhost"):
            raise ImageFetchError(image=image.image_id, reason="its URL is not http, https or file")
        path = Path(unquote(url.path)).resolve()
        if not path.is_relative_to(self._store.resolve()):
            raise ImageFetchError(image=image.image_id, reason="its file does not lie in the image store")
        return path

    def _open(self, image: ImageSpec, source: Path | None) -> BinaryIO:
        if source is not None:
            return source.open("rb")
        # The site's own API: never by way of a proxy that the environment names.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        response: BinaryIO = opener.open(image.url, timeout=_SOCKET_TIMEOUT_S)
        return response

    def _verified(self, image: ImageSpec, stream: BinaryIO, output: BinaryIO | None) -> None:
        digest, size_bytes = hashlib.sha256(), 0
        deadline = time.monotonic() + FETCH_TIMEOUT_S
        while chunk := stream.read(_CHUNK):
            size_bytes += len(chunk)
            if size_bytes > image.size_bytes:
                reason = f"it is larger than the {image.size_bytes} bytes that were announced"
                raise ImageFetchError(image=image.image_id, reason=reason)
            if time.monotonic() > deadline:
                raise ImageSourceUnavailable(image=image.image_id, reason=f"not done in {FETCH_TIMEOUT_S:g} s")
            digest.update(chunk)
            if output is not None:
                output.write(chunk)
            self._pause(0)
        if size_bytes < image.size_bytes:
            reason = f"it ended after {size_bytes} of {image.size_bytes} bytes"
            raise ImageSourceUnavailable(image=image.image_id, reason=reason)
        if digest.hexdigest() != image.sha256:
            raise ImageFetchError(image=image.image_id, reason="its checksum is another one")


def _inspect(image: ImageSpec, path: Path) -> BaseImage:
    try:
        with path.open("rb") as file:
            info = inspect_header(file.read(HEADER_BYTES), path.stat().st_size)
    except OSError as error:
        raise ImageSourceUnavailable(image=image.image_id, reason=str(error)) from error
    except ImageRejected as error:
        raise ImageFetchError(image=image.image_id, reason=str(error)) from error
    if image.format != info.format:
        raise ImageFetchError(image=image.image_id, reason=f"it is {info.format}, not {image.format}")
    return BaseImage(path, info.format, info.virtual_size_bytes)


def _source_error(image: ImageSpec, error: Exception) -> ImageFetchError:
    if isinstance(error, urllib.error.HTTPError) and error.code < 500 and error.code not in (408, 425, 429):
        return ImageFetchError(image=image.image_id, reason=f"its source says {error.code} {error.reason}")
    if isinstance(error, FileNotFoundError | PermissionError | FileExistsError):
        return ImageFetchError(image=image.image_id, reason=str(error))
    return ImageSourceUnavailable(image=image.image_id, reason=str(error) or type(error).__name__)


def _is_image(path: Path) -> bool:
    return path.suffix.removeprefix(".") in _FORMATS


def _hard_linked(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # another file system
        return False
    return True
