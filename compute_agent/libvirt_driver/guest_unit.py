"""libvirtd and its guests as a unit of systemd of their own, in machine.slice, beside the agent's.

As children of the agent they would be in its control group, and `systemctl kill` of the agent's unit would reach them.
A service and not a scope: systemd 252 ends a whole scope when the kernel kills one process of it for want of memory.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from controller.domain.errors import CommandFailed, DriverError
from controller.programs import systemctl

_BOOTED = Path("/run/systemd/system")
_UNITS = Path("/run/systemd/system")


def is_available(folder: Path) -> bool:
    """Whether systemd is this machine's, and sees the network and the ``folder`` that we see.

    In a container or in namespaces of our own, a unit would be started outside of them.
    """
    if os.geteuid() != 0 or not _BOOTED.is_dir():
        return False
    try:
        if Path("/proc/1/comm").read_text().strip() != "systemd":
            return False
        same = all(
            Path("/proc/1/ns", name).readlink() == Path("/proc/self/ns", name).readlink() for name in ("pid", "net")
        )
        return same and os.path.samestat(folder.stat(), Path("/proc/1/root", *folder.absolute().parts[1:]).stat())
    except OSError:
        return False


class GuestUnit:
    """The unit of one cloud on this machine. Its name does not begin with `pileus`: what is meant for all of Pileus's
    units, as `systemctl stop 'pileus*'`, is not meant for guests."""

    def __init__(self, cloud_id: str) -> None:
        self.name = f"guests-{cloud_id}.service"
        self._cloud_id = cloud_id
        self._file = _UNITS / self.name

    def start(self, argv: Sequence[str]) -> None:
        """Start the program; guests that an earlier one has left run on.

        Raises:
            DriverError: systemd refuses.
        """
        text = unit_text(self._cloud_id, argv)
        if not self._file.exists() or self._file.read_text() != text:
            self._file.write_text(text)
            with _refused():
                systemctl.daemon_reload()
        with _refused():
            systemctl.restart(self.name)

    def ended(self) -> str:
        """How the program has ended; empty while it runs."""
        with _refused():
            found = systemctl.show(self.name, "ActiveState", "Result", "ExecMainStatus")
        if found.get("ActiveState") in ("active", "activating", "reloading", "deactivating"):
            return ""
        return f"{found.get('Result', 'unknown')}, status {found.get('ExecMainStatus', 'unknown')}"

    def remove(self) -> None:
        """Forget the unit, whose program has been stopped; a machine without one is fine."""
        if self._file.exists():
            with suppress(CommandFailed):
                systemctl.stop(self.name)
            self._file.unlink()
            with suppress(CommandFailed):
                systemctl.daemon_reload()


def unit_text(cloud_id: str, argv: Sequence[str]) -> str:
    """The unit's file."""
    return f"""\
# Written by pileus's agent; gone with the machine's next boot.
[Unit]
Description=libvirtd and the guests of Pileus, cloud {cloud_id}
CollectMode=inactive-or-failed

[Service]
Type=exec
ExecStart=:{" ".join(map(_quoted, argv))}
Slice=machine.slice
# libvirtd is stopped and started again while guests run on.
KillMode=process
OOMPolicy=continue
TasksMax=infinity
LimitNOFILE=65536
TimeoutStopSec=20
"""


def _quoted(word: str) -> str:
    """One word of a command line, see systemd.service(5); with `:` before the command there are no variables."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("\n", "\\n")
    return f'"{escaped}"'


@contextmanager
def _refused() -> Iterator[None]:
    try:
        yield
    except CommandFailed as error:
        raise DriverError(what="Starting libvirtd as a unit of systemd", reason=str(error).rstrip(".")) from error
