"""A guest's serial console: the file that QEMU appends to, kept below a size."""

import shutil
from pathlib import Path

NAME, OLDER = "console.log", "console.log.1"


def read_end(folder: Path, max_bytes: int) -> bytes:
    """The last bytes that were written, across one rotation."""
    newer = _end_of(folder / NAME, max_bytes)
    return _end_of(folder / OLDER, max_bytes - len(newer)) + newer


def rotate(folder: Path, max_bytes: int) -> None:
    """Once it has grown over ``max_bytes``, begin again; QEMU writes with O_APPEND, so the file is emptied."""
    path = folder / NAME
    try:
        if path.stat().st_size > max_bytes:
            shutil.copyfile(path, folder / OLDER)
            with path.open("r+b") as file:
                file.truncate(0)
    except FileNotFoundError:
        return


def _end_of(path: Path, max_bytes: int) -> bytes:
    if max_bytes <= 0:
        return b""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - max_bytes))
            return file.read(max_bytes)
    except FileNotFoundError:
        return b""
