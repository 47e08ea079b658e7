"""File systems that are soon full, which only the test and its processes can see."""

import contextlib
import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.labs.servers.guarded import ServerError

BLOCK_BYTES = 4096
_CLONE_FS, _CLONE_NEWNS = 0x200, 0x20000


@contextlib.contextmanager
def own_mounts() -> Iterator[None]:
    """This thread, and what it starts, has mounts of its own until the block ends.

    The kernel removes them with the last process that sees them, however the test run ends.
    """
    if os.geteuid() != 0:
        raise ServerError("root is needed to mount a file system")
    # Thread by thread: /proc/self is the process's first one.
    home = Path.cwd()
    with Path("/proc/thread-self/ns/mnt").open() as outside:
        _call("unshare", _CLONE_NEWNS)
        try:
            _run("mount", "--make-rprivate", "/")
            yield
        finally:
            # Threads that were begun meanwhile share this one's folder: these do not change namespaces.
            _call("unshare", _CLONE_FS)
            _call("setns", outside.fileno(), _CLONE_NEWNS)
            os.chdir(home)


class Volume:
    """A file system of so many MiB, within ``own_mounts``; a context manager."""

    def __init__(self, size_mib: int) -> None:
        self._size_mib = size_mib
        # Not pytest's folder: servers run as users who cannot reach that.
        self.folder = Path(tempfile.mkdtemp(prefix="pileus-volume-"))

    def lend(self, path: Path, *, user: str | None = None) -> None:
        """A new folder of this volume, reached by another path; ``user`` owns it."""
        folder = self.folder / path.name
        folder.mkdir(mode=0o700)
        if user:
            shutil.chown(folder, user, user)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(folder)

    @contextlib.contextmanager
    def full(self) -> Iterator[None]:
        """No block is left until the block ends."""
        filler = self.folder / "filler"
        try:
            self._fill(filler)
            yield
        finally:
            filler.unlink(missing_ok=True)

    def _fill(self, filler: Path) -> None:
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(64 * 1024))
        if shutil.disk_usage(self.folder).free:
            raise ServerError(f"{self.folder} could not be filled")

    def __enter__(self) -> "Volume":
        _run("mount", "-t", "tmpfs", "-o", f"size={self._size_mib}m,mode=755", "pileus-test", str(self.folder))
        return self

    def __exit__(self, *_: object) -> None:
        _run("umount", "--lazy", str(self.folder))
        self.folder.rmdir()


def _call(name: str, *arguments: int) -> None:
    # os.unshare and os.setns come with Python 3.12.
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments):
        raise OSError(ctypes.get_errno(), name)


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    if done.returncode != 0:
        raise ServerError(f"{' '.join(argv)}: {done.stderr}")
