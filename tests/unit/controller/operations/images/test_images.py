"""Importing images: what is refused leaves no file and no row."""

import os
from pathlib import Path
from typing import Any

import pytest

from controller.domain.errors import CloudError, ImageNotFound, ImageRejected, InvalidParameter, NotAuthorized
from controller.operations.images import images
from controller.operations.images import views as image_views
from controller.operations.images.urls import check_image_url, image_url
from tests.labs.cloud import TestCloud
from tests.labs.image_headers import header


def store(site: TestCloud) -> list[str]:
    return (
        sorted(p.name for p in site.cloud.settings.image_store.glob("*") if p.name != ".lock")
        if site.cloud.settings.image_store.exists()
        else []
    )


def test_the_same_file_is_stored_once(site: TestCloud, tmp_path: Path) -> None:
    file = tmp_path / "disk"
    file.write_bytes(b"\0" * 8 * 1024 * 1024 + b"x" * 512)
    one = images.import_image(site.cloud, file, name="one", project_id=site.project_id)
    two = images.import_image(site.cloud, file, name="two", project_id=site.project_id, public=True)
    assert one.sha256 == two.sha256
    assert store(site) == [f"{one.sha256}.raw"]
    assert images.stored_file(site.cloud.settings, one.sha256, "raw").read_bytes() == file.read_bytes()


def test_a_disk_that_takes_a_part_of_what_is_written_gets_the_rest(
    site: TestCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a disk does that is full the next moment: the end of the image would be zeros."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:4096]))
    file = tmp_path / "disk"
    file.write_bytes(b"x" * 10240)
    image = images.import_image(site.cloud, file, name="one", project_id=site.project_id)
    assert images.stored_file(site.cloud.settings, image.sha256, "raw").read_bytes() == b"x" * 10240


def test_what_a_killed_import_has_left_goes_with_the_next_one(site: TestCloud, tmp_path: Path) -> None:
    now = site.clock().timestamp()
    site.cloud.settings.image_store.mkdir(parents=True)
    for name, age_s in (("killed", 90_000), ("under-way", 3600)):
        left = site.cloud.settings.image_store / f".import-{name}"
        left.write_bytes(b"half")
        os.utime(left, (now - age_s, now - age_s))
    file = tmp_path / "disk"
    file.write_bytes(b"x" * 512)
    image = images.import_image(site.cloud, file, name="one", project_id=site.project_id)
    assert store(site) == [".import-under-way", f"{image.sha256}.raw"]


@pytest.mark.parametrize(
    ("content", "change", "error"),
    [
        (header(backing=4096), {}, ImageRejected),
        (header(incompatible=4), {}, ImageRejected),
        (header(size=2**50), {}, ImageRejected),
        (b"", {}, ImageRejected),
        (b"x" * 513, {}, ImageRejected),
        (b"x" * 2048, {}, ImageRejected),
        (b"x" * 512, {"name": ""}, InvalidParameter),
        (b"x" * 512, {"name": "a\nb"}, InvalidParameter),
        (b"x" * 512, {"architecture": "z80"}, InvalidParameter),
        (b"x" * 512, {"hypervisor": "bochs"}, InvalidParameter),
        (b"x" * 512, {"min_memory_mib": 2**31}, InvalidParameter),
        (b"x" * 512, {"min_disk_gib": -1}, InvalidParameter),
    ],
)
def test_what_is_refused_leaves_nothing(
    tmp_path: Path, content: bytes, change: dict[str, Any], error: type[CloudError]
) -> None:
    site = TestCloud.create(tmp_path / "state", images__max_bytes=1024)
    file = tmp_path / "disk"
    file.write_bytes(content)
    before = len(site.cloud.read(image_views.list_images))
    with pytest.raises(error):
        images.import_image(site.cloud, file, **{"name": "bad", "project_id": site.project_id, **change})
    assert store(site) == []
    assert len(site.cloud.read(image_views.list_images)) == before
    site.close()


def test_no_folder_no_device(site: TestCloud, tmp_path: Path) -> None:
    for path in (tmp_path, Path("/dev/zero"), tmp_path / "missing"):
        with pytest.raises(ImageRejected, match="not a regular file"):
            images.import_image(site.cloud, path, name="x", project_id=site.project_id)


def test_a_private_image_is_seen_by_its_project_alone(site: TestCloud, tmp_path: Path) -> None:
    file = tmp_path / "disk"
    file.write_bytes(b"x" * 512)
    image = images.import_image(site.cloud, file, name="mine", project_id=site.project_id)
    with pytest.raises(ImageNotFound):
        site.cloud.read(lambda tx: images.get_image(tx, "210987654321", image.id))
    with pytest.raises(ImageNotFound):
        site.cloud.write(lambda tx: images.deregister(tx, "210987654321", image.id))
    site.cloud.write(lambda tx: images.deregister(tx, site.project_id, image.id))
    assert image.id not in [i.id for i in site.cloud.read(image_views.list_images)]


def test_an_image_url_is_valid_for_its_file_and_its_time_alone(site: TestCloud) -> None:
    settings, now = site.cloud.settings, site.clock()
    url = image_url(settings, "ab" * 32, "qcow2", now)
    _, _, query = url.partition("?")
    expires, signature = (p.partition("=")[2] for p in query.split("&"))
    check_image_url(settings, "ab" * 32, "qcow2", int(expires), signature, now)
    for sha256, fmt, until, signed in (
        ("cd" * 32, "qcow2", int(expires), signature),
        ("ab" * 32, "raw", int(expires), signature),
        ("ab" * 32, "qcow2", int(expires) + 1, signature),
        ("ab" * 32, "qcow2", int(expires), "0" * 64),
    ):
        with pytest.raises(NotAuthorized):
            check_image_url(settings, sha256, fmt, until, signed, now)
    site.clock.advance(settings.images.url_valid_s + 1)
    with pytest.raises(NotAuthorized):
        check_image_url(settings, "ab" * 32, "qcow2", int(expires), signature, site.clock())
