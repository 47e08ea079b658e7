"""What dnsmasq serves, in files: ``hosts`` and ``names``, and what was added since in ``hosts.d`` and ``names.d``.

dnsmasq reads a new file in one of these folders at once and by itself, and adds what is in it; what is no longer in any
file it forgets when SIGHUP has it read all of them (``dhcp-hostsdir`` and ``hostsdir`` of
https://thekelleys.org.uk/dnsmasq/docs/dnsmasq-man.html). So a launch costs what is launched, not what is there already.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from network.dnsmasq import config
from network.files import replace_if_changed
from network.segment import HeldLease

# What changes when a file does: inode, time, size; zeros where there is none.
Signature: TypeAlias = tuple[int, int, int]
# So many additions are kept apart; then all are written as one, and read again.
MAX_ADDITIONS = 100


class ServedFiles:
    """The files of one network, in its folder."""

    def __init__(self, folder: Path, *, domain: str, lease_s: int) -> None:
        self._folder = folder
        self._domain = domain
        self._lease_s = lease_s
        self._hosts_d, self._names_d = folder / config.HOSTS_DIR, folder / config.NAMES_DIR

    def write(self, leases: Sequence[HeldLease]) -> bool:
        """Make the files hold these leases and no others; whether dnsmasq has to read them again.

        A process that dies meanwhile leaves files that hold too little or too much; the next look writes them again.
        """
        changed = self._make_folders()
        # The names first: a guest is never given an address before its name.
        changed |= replace_if_changed(self._folder / "names", config.names(leases, self._domain))
        changed |= replace_if_changed(self._folder / "hosts", config.known_hosts(leases, self._lease_s))
        return changed

    def add(self, number: int, leases: Sequence[HeldLease]) -> None:
        """Add leases whose addresses are in none of the files; ``number`` is that of no addition before."""
        replace_if_changed(self._names_d / f"{number:06d}", config.names(leases, self._domain))
        replace_if_changed(self._hosts_d / f"{number:06d}", config.known_hosts(leases, self._lease_s))

    def signature(self) -> tuple[tuple[str, Signature], ...]:
        """A value that changes with any of the files."""
        files = [self._folder / "names", self._folder / "hosts", *_within(self._hosts_d), *_within(self._names_d)]
        return tuple((file.name, signature(file)) for file in files)

    def _make_folders(self) -> bool:
        """Empty folders; whether there was something in one of them."""
        found = [*_within(self._hosts_d), *_within(self._names_d)]
        for file in found:
            if file.is_dir() and not file.is_symlink():
                shutil.rmtree(file)
            else:
                file.unlink(missing_ok=True)
        for folder in (self._hosts_d, self._names_d):
            folder.mkdir(mode=0o755, exist_ok=True)
        return bool(found)


def served_lines(folder: Path) -> list[str]:
    """The lines of all files of known MAC addresses below a network's folder. Raises OSError: one cannot be read."""
    return [line for file in (folder / "hosts", *_within(folder / config.HOSTS_DIR)) for line in _lines(file)]


def signature(path: Path) -> Signature:
    """What changes when the file does; zeros when it is not there."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0
    return found.st_ino, found.st_mtime_ns, found.st_size


def _within(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []
