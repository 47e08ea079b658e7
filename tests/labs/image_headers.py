"""Headers of qcow2 images, well-formed or not."""

import struct

GIB = 1024**3


def header(
    *,
    version: int = 3,
    backing: int = 0,
    cluster_bits: int = 16,
    size: int = GIB,
    crypt: int = 0,
    incompatible: int = 0,
) -> bytes:
    head = struct.pack(">4sIQIIQI", b"QFI\xfb", version, backing, 0, cluster_bits, size, crypt)
    return head.ljust(72, b"\0") + struct.pack(">QQQII", incompatible, 0, 0, 4, 104) + b"\0" * 8
