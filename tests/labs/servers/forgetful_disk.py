"""A folder on a disk that loses at a power cut whatever was not synced."""

import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.labs.servers.guarded import find_program

_SOURCE = Path(__file__).with_suffix(".c")


class ForgetfulDisk:
    """Notes what the processes that are started with ``environment`` sync of the files below ``folder``.

    All of them are killed before ``cut``. The worst disk that still keeps its word: nothing is written early, and a
    sync is the only way to the disk. Memory maps, ``O_SYNC`` and ``sync()`` are not noted, as nothing here uses them.
    Files that match ``elsewhere`` lie on another disk, whose machine goes on.
    """

    def __init__(self, folder: Path, *, elsewhere: str = "") -> None:
        self.folder = folder.resolve()
        self._elsewhere = elsewhere
        self._notes = Path(tempfile.mkdtemp(prefix="pileus-synced-"))
        self._library = self._notes / "forgetful_disk.so"
        compiler = find_program("gcc", package="gcc")
        subprocess.run(
            [compiler, "-Wall", "-Wno-format-truncation", "-O1", "-shared", "-fPIC", "-o", self._library, _SOURCE],
            check=True,
        )

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process needs in its environment to be noted."""
        return {
            "LD_PRELOAD": str(self._library),
            "PILEUS_SYNCED_FROM": str(self.folder),
            "PILEUS_SYNCED_TO": str(self._notes),
        }

    def sync(self) -> None:
        """All that is there now is on the disk."""
        for kept in ("names", "content"):
            shutil.rmtree(self._notes / kept, ignore_errors=True)
        for path in self.folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                name = self._notes / "names" / path.relative_to(self.folder)
                content = self._notes / "content" / str(path.stat().st_ino)
                for made in (name, content):
                    made.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, content)
                name.symlink_to(content)

    def cut(self) -> None:
        """The power goes and comes back: the folder has what was synced, and nothing else."""
        ours = [p for p in self.folder.rglob("*") if p.is_file() and not self._is_elsewhere(p)]
        modes = {p: p.stat().st_mode & 0o777 for p in ours}
        for path in modes:
            path.unlink()
        names = self._notes / "names"
        for name in names.rglob("*"):
            path = self.folder / name.relative_to(names)
            if name.is_symlink() and name.exists() and not self._is_elsewhere(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(name, path)
                path.chmod(modes.get(path, 0o600))

    def _is_elsewhere(self, path: Path) -> bool:
        return bool(self._elsewhere) and path.match(self._elsewhere)

    def __enter__(self) -> "ForgetfulDisk":
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._notes, ignore_errors=True)
