"""What a cloud keeps below its state folder, and how to remove that and nothing else."""

import shutil
from pathlib import Path

from controller.conf.load import FILE_NAME
from controller.conf.settings import Settings

# By name: the user may keep other files in the folder.
_FILES = (
    "pileus.db",
    "pileus.db-wal",
    "pileus.db-shm",
    "secret.key",
    "cloudrc",
    "demo-key.pem",
    "simulated.raw",
    FILE_NAME,
)
_FOLDERS = (
    "images",
    "cache",
    "agent",
    "instances",
    "removed-disks",
    "libvirt",
    "networks",
    "network",
    "metadata",
    "run",
    "log",
)


def remove_state(settings: Settings) -> tuple[list[str], list[str]]:
    """Remove what a cloud made below its state folder, the folder itself when it is empty then.

    Answers with the names that were removed and those that were left; a virtual environment is left, for it is slow
    to make. An image store elsewhere is left too, as other clouds may read it.
    """
    removed = []
    for name in (*_FOLDERS, *_FILES):
        path = settings.state_dir / name
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            continue
        removed.append(name)
    return removed, _left(settings.state_dir)


def _left(folder: Path) -> list[str]:
    try:
        folder.rmdir()
    except OSError:
        return sorted(p.name + ("/" if p.is_dir() else "") for p in folder.iterdir())
    return []
