"""The image cache: what is fetched is what was announced, once, and never from elsewhere."""

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from compute_agent.errors import ImageSourceUnavailable, WorkAbandoned
from compute_agent.images import cache as image_cache
from compute_agent.images.cache import ImageCache
from controller.domain.errors import ImageFetchError
from controller.domain.messages import ImageSpec
from tests.labs.waiting import wait_for

RAW = b"raw disk".ljust(4096, b"\0")
QCOW2_WITH_BACKING = b"QFI\xfb\0\0\0\3" + (200).to_bytes(8) + (10).to_bytes(4) + bytes(500)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    return folder


@pytest.fixture
def cache(tmp_path: Path, store: Path) -> ImageCache:
    return ImageCache(tmp_path / "cache", store, 10_000, frozenset)


def spec(content: bytes, url: str, image_format: str = "raw") -> ImageSpec:
    return ImageSpec("ami-1", hashlib.sha256(content).hexdigest(), len(content), image_format, url)


@contextmanager
def served(content: bytes, status: int = 200, gate: threading.Event | None = None) -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            if gate is not None:
                gate.wait(5)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/image", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def left(cache_folder: Path) -> list[str]:
    return sorted(p.name for p in cache_folder.iterdir() if p.suffix != ".lock")


def test_a_file_of_the_store_is_linked(cache: ImageCache, store: Path) -> None:
    (store / "a").write_bytes(RAW)
    base = cache.fetch(spec(RAW, (store / "a").as_uri()))
    assert base.path.read_bytes() == RAW
    assert base.path.samefile(store / "a")
    assert (base.format, base.virtual_size_bytes) == ("raw", 4096)
    (store / "a").unlink()
    assert cache.fetch(spec(RAW, (store / "a").as_uri())).path == base.path
    assert cache.images() == (hashlib.sha256(RAW).hexdigest(),)


def test_many_who_want_it_at_once_fetch_it_once(cache: ImageCache) -> None:
    gate = threading.Event()
    with served(RAW, gate=gate) as (url, asked), ThreadPoolExecutor(8) as pool:
        fetched = [pool.submit(cache.fetch, spec(RAW, url)) for _ in range(8)]
        gate.set()
        assert {f.result(timeout=10).path.read_bytes() for f in fetched} == {RAW}
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("announced", "sent", "words", "passes"),
    [
        (RAW, RAW[:-1] + b"x", "checksum", False),
        (RAW, RAW + b"more", "larger", False),
        (RAW, RAW[:-100], "ended after", True),
        (QCOW2_WITH_BACKING, QCOW2_WITH_BACKING, "backing file", False),
        (b"odd", b"odd", "multiple of 512", False),
    ],
)
def test_something_else_than_announced_is_refused(
    cache: ImageCache, tmp_path: Path, announced: bytes, sent: bytes, words: str, passes: bool
) -> None:
    with served(sent) as (url, _), pytest.raises(ImageFetchError, match=words) as caught:
        cache.fetch(spec(announced, url))
    assert caught.value.retriable is passes
    assert left(tmp_path / "cache") == []


@pytest.mark.parametrize(("status", "passes"), [(404, False), (403, False), (503, True), (429, True)])
def test_what_the_source_says(cache: ImageCache, status: int, passes: bool) -> None:
    with served(b"", status) as (url, _), pytest.raises(ImageFetchError) as caught:
        cache.fetch(spec(RAW, url))
    assert caught.value.retriable is passes


def test_a_source_that_is_away_may_come_back(cache: ImageCache) -> None:
    with pytest.raises(ImageSourceUnavailable):
        cache.fetch(spec(RAW, "http://127.0.0.1:1/image"))


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x", "file://host/x", "/etc/passwd", "gopher:x"])
def test_no_other_place(cache: ImageCache, url: str) -> None:
    with pytest.raises(ImageFetchError):
        cache.fetch(spec(RAW, url))


def test_no_way_out_of_the_store(cache: ImageCache, store: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(RAW)
    (store / "link").symlink_to(tmp_path / "secret")
    for url in (f"file://{store}/../secret", (store / "link").as_uri(), f"file://{store}/%2e%2e/secret"):
        with pytest.raises(ImageFetchError, match="image store"):
            cache.fetch(spec(RAW, url))


@pytest.mark.parametrize("sha256", ["../../x", "", "0" * 63, "A" * 64])
def test_a_checksum_is_no_path(cache: ImageCache, sha256: str) -> None:
    with pytest.raises(ImageFetchError, match="malformed"):
        cache.fetch(ImageSpec("ami-1", sha256, 1, "raw", "http://127.0.0.1:1/"))


def test_unused_images_go_when_there_are_too_many(tmp_path: Path, store: Path) -> None:
    used: set[int] = set()
    cache = ImageCache(tmp_path / "cache", store, 3 * 4096, lambda: frozenset(used))
    for number in range(6):
        content = bytes([number]) * 4096
        (store / str(number)).write_bytes(content)
        base = cache.fetch(spec(content, (store / str(number)).as_uri()))
        if number < 2:
            used.add(base.path.stat().st_ino)
    kept = {p.read_bytes()[0] for p in (tmp_path / "cache").glob("*.raw")}
    assert {0, 1} <= kept
    assert len(kept) == 3


def test_what_is_held_is_not_evicted(tmp_path: Path, store: Path) -> None:
    """Between the fetch of an image and the disk over it, another fetch may need its room."""
    cache = ImageCache(tmp_path / "cache", store, 1, frozenset)  # less than any image
    images = []
    for number in range(2):
        content = bytes([number]) * 4096
        (store / str(number)).write_bytes(content)
        images.append(spec(content, (store / str(number)).as_uri()))
    with cache.held(images[0]) as first:
        with cache.held(images[0]) as again:
            assert again == first
        with cache.held(images[1]) as second:
            assert second.path.read_bytes() == bytes([1]) * 4096
        cache.evict()
        assert first.path.exists()
        assert not second.path.exists()
    cache.evict()
    assert left(tmp_path / "cache") == []


def test_what_a_killed_fetch_has_left_goes(cache: ImageCache, tmp_path: Path) -> None:
    killed = hashlib.sha256(b"killed").hexdigest()
    (tmp_path / "cache").mkdir()
    for suffix in ("half-made", "lock"):
        (tmp_path / "cache" / f"{killed}.{suffix}").write_bytes(b"half")
    gate = threading.Event()
    with served(RAW, gate=gate) as (url, asked), ThreadPoolExecutor(1) as pool:
        fetched = pool.submit(cache.fetch, spec(RAW, url))
        wait_for(lambda: bool(asked))
        half_made = tmp_path / "cache" / f"{spec(RAW, url).sha256}.half-made"
        half_made.touch()  # as it is once the source has answered
        cache.evict()
        assert left(tmp_path / "cache") == [half_made.name]
        half_made.unlink()
        gate.set()
        fetched.result()


def test_a_stopping_agent_does_not_wait(tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopping(_: float) -> None:
        raise WorkAbandoned

    cache = ImageCache(tmp_path / "cache", store, 10_000, frozenset, stopping)
    with served(RAW) as (url, _), pytest.raises(WorkAbandoned):
        cache.fetch(spec(RAW, url))
    assert left(tmp_path / "cache") == []


def test_a_fetch_that_takes_too_long_is_given_up(cache: ImageCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_cache, "FETCH_TIMEOUT_S", -1.0)
    with served(RAW) as (url, _), pytest.raises(ImageSourceUnavailable, match="not done in"):
        cache.fetch(spec(RAW, url))
