"""Files that other programs read while we write them."""

import os
from pathlib import Path


def replace_if_changed(path: Path, text: str) -> bool:
    """Make the file hold this text, all or nothing; whether it did not before."""
    if unchanged(path, text):
        return False
    new = path.with_name(f".{path.name}.new")
    with new.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.chmod(0o644)
    new.replace(path)
    return True


def unchanged(path: Path, text: str) -> bool:
    """Whether the file holds exactly this text; it may hold anything."""
    try:
        return path.read_bytes() == text.encode()
    except OSError:
        return False
