"""What an image file claims to be, read from its first bytes alone; a file is hostile until it has passed.

The qcow2 header: https://gitlab.com/qemu-project/qemu/-/blob/master/docs/interop/qcow2.txt
"""

import struct
from dataclasses import dataclass

from controller.domain.errors import ImageRejected

HEADER_BYTES = 112
_QCOW2_MAGIC = b"QFI\xfb"
_EXTERNAL_DATA_FILE = 1 << 2
_KNOWN_INCOMPATIBLE = 0b11111  # dirty, corrupt, external data, compression type, extended L2
_CORRUPT = 1 << 1
# Formats that qemu would guess from their magic; here they are refused by name rather than taken as raw.
_OTHER_MAGIC = {
    b"KDMV": "vmdk",
    b"# Di": "vmdk",
    b"COWD": "vmdk",
    b"vhdx": "vhdx",
    b"cone": "vhd",
    b"<<< ": "vdi",
    b"LUKS": "luks",
    b"QED\0": "qed",
    b"With": "parallels",
    b"\x1f\x8b\x08\x00": "gzip",
    b"\x1f\x8b\x08\x08": "gzip",
    b"\xfd7zX": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh9": "bzip2",
    b"PK\x03\x04": "zip",
}


@dataclass(frozen=True)
class ImageInfo:
    """An image that may be used: ``format`` is given to qemu explicitly, never guessed."""

    format: str
    virtual_size_bytes: int


def inspect_header(head: bytes, size_bytes: int) -> ImageInfo:
    """The format and the size of the disk in an image file of ``size_bytes`` that begins with ``head``.

    Raises:
        ImageRejected: another format, a backing file, an external data file, encryption, a broken header.
    """
    if size_bytes == 0:
        raise ImageRejected(reason="the file is empty")
    if head[:4] == _QCOW2_MAGIC:
        return _inspect_qcow2(head)
    if other := _OTHER_MAGIC.get(head[:4]):
        raise ImageRejected(reason=f"it is {other}; only qcow2 and raw are taken (qemu-img convert makes them)")
    if size_bytes % 512:
        raise ImageRejected(reason=f"a raw disk is a multiple of 512 bytes, this file has {size_bytes}")
    return ImageInfo("raw", size_bytes)


def _inspect_qcow2(head: bytes) -> ImageInfo:
    if len(head) < 72:
        raise ImageRejected(reason="the qcow2 header is cut off")
    version, backing_offset, backing_size, cluster_bits, virtual_size, crypt = struct.unpack(">IQIIQI", head[4:36])
    if version not in (2, 3):
        raise ImageRejected(reason=f"qcow2 version {version} is not known")
    if backing_offset or backing_size:
        raise ImageRejected(reason="it names a backing file; flatten it with qemu-img convert -O qcow2")
    if crypt:
        raise ImageRejected(reason="it is encrypted")
    if not 9 <= cluster_bits <= 21:
        raise ImageRejected(reason=f"its cluster size of 2^{cluster_bits} is out of range")
    if virtual_size == 0:
        raise ImageRejected(reason="its disk has no size")
    if version == 3:
        _check_features(head)
    return ImageInfo("qcow2", virtual_size)


def _check_features(head: bytes) -> None:
    if len(head) < 104:
        raise ImageRejected(reason="the qcow2 header is cut off")
    (incompatible,) = struct.unpack(">Q", head[72:80])
    if incompatible & _EXTERNAL_DATA_FILE:
        raise ImageRejected(reason="it keeps its data in an external file")
    if incompatible & _CORRUPT:
        raise ImageRejected(reason="it is marked corrupt; repair it with qemu-img check -r all")
    if incompatible & ~_KNOWN_INCOMPATIBLE:
        raise ImageRejected(reason="it uses qcow2 features that are not known")
