"""Image files are hostile until their header has been read."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.domain.errors import ImageRejected
from controller.domain.image_format import HEADER_BYTES, ImageInfo, inspect_header
from tests.labs.image_headers import GIB, header


def test_a_plain_qcow2_is_taken() -> None:
    assert inspect_header(header(), 65536) == ImageInfo("qcow2", GIB)
    assert inspect_header(header(version=2)[:72], 65536) == ImageInfo("qcow2", GIB)


def test_anything_of_whole_sectors_is_raw() -> None:
    assert inspect_header(b"\0" * HEADER_BYTES, 1024) == ImageInfo("raw", 1024)


@pytest.mark.parametrize(
    ("head", "size", "why"),
    [
        (b"", 0, "empty"),
        (b"\0" * 100, 513, "multiple of 512"),
        (header(backing=1024), 65536, "backing file"),
        (header(incompatible=4), 65536, "external file"),
        (header(incompatible=2), 65536, "corrupt"),
        (header(incompatible=1 << 40), 65536, "not known"),
        (header(crypt=1), 65536, "encrypted"),
        (header(crypt=2), 65536, "encrypted"),
        (header(version=4), 65536, "version 4"),
        (header(cluster_bits=60), 65536, "cluster size"),
        (header(size=0), 65536, "no size"),
        (header()[:40], 40, "cut off"),
        (header()[:80], 80, "cut off"),
        (b"KDMV" + b"\0" * 508, 512, "vmdk"),
        (b"LUKS\xba\xbe" + b"\0" * 506, 512, "luks"),
        (b"\x1f\x8b\x08\x00" + b"\0" * 508, 512, "gzip"),
    ],
)
def test_what_is_refused_and_why(head: bytes, size: int, why: str) -> None:
    with pytest.raises(ImageRejected, match=why):
        inspect_header(head, size)


@given(st.binary(max_size=200), st.integers(0, 2**40))
def test_any_bytes_are_taken_or_refused(head: bytes, size: int) -> None:
    try:
        info = inspect_header(head, size)
    except ImageRejected:
        return
    assert info.format in ("raw", "qcow2")
    assert info.virtual_size_bytes > 0


@pytest.mark.system
def test_what_qemu_img_makes(tmp_path: Path) -> None:
    base, overlay, data = tmp_path / "a.qcow2", tmp_path / "b.qcow2", tmp_path / "c.qcow2"
    create = ["qemu-img", "create", "-q", "-f", "qcow2"]
    subprocess.run([*create, str(base), "10M"], check=True)
    subprocess.run([*create, "-F", "qcow2", "-b", str(base), str(overlay)], check=True)
    subprocess.run([*create, "-o", f"data_file={tmp_path / 'data'}", str(data), "10M"], check=True)
    assert inspect_header(base.read_bytes()[:HEADER_BYTES], 512) == ImageInfo("qcow2", 10 * 1024**2)
    with pytest.raises(ImageRejected, match="backing file"):
        inspect_header(overlay.read_bytes()[:HEADER_BYTES], 512)
    with pytest.raises(ImageRejected, match="external file"):
        inspect_header(data.read_bytes()[:HEADER_BYTES], 512)
