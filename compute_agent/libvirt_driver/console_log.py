"""A guest's serial console: the file that QEMU appends to, kept below a size."""

import os
import shutil
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

NAME, OLDER = "console.log", "console.log.1"


def read_end(folder: Path, max_bytes: int) -> bytes:
    """The last bytes that were written, across one rotation."""
    newer = _end_of(folder / NAME, max_bytes)
    return _end_of(folder / OLDER, max_bytes - len(newer)) + newer


def rotate(folder: Path, max_bytes: int) -> None:
    """Once it has grown over ``max_bytes``, empty it and keep the last of them; they are dropped if the disk is
    full. QEMU writes with O_APPEND, so the file can be emptied."""
    path = folder / NAME
    try:
        size = path.stat().st_size
        if size > max_bytes:
            _keep_end(path, size - max_bytes, folder / OLDER)
            os.truncate(path, 0)
    except FileNotFoundError:
        return


def _keep_end(path: Path, begin: int, older: Path) -> None:
    try:
        with path.open("rb") as source, older.open("wb") as target:
            source.seek(begin)
            shutil.copyfileobj(source, target)
    except FileNotFoundError:
        raise
    except OSError as error:
        log.warning("what a console had is not kept", instance=path.parent.name, console=str(path), reason=str(error))
        older.unlink(missing_ok=True)


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
