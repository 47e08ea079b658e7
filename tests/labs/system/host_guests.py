"""What a host carries, looked at from outside: its guests' processes, domains, disks and taps."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from controller.domain.ids import domain_uuid
from controller.domain.names import tap_prefix
from tests.labs.system.first_cloud import command_line
from tests.labs.system.machine import Machine
from tests.labs.system.running_cloud import processes_with

FILLER = "filler"  # a file that fills the volume of the guests' disks
_KEPT = ".removed-disks"  # among those in use where these have a file system of their own


class BuildStep(Enum):
    """What a build has made last."""

    IMAGE = "image"
    DISK = "disk"
    DOMAIN = "domain"
    PROCESS = "process"


@dataclass(frozen=True)
class HostGuests:
    """The guests of one cloud on one machine; ``state`` is the folder of their agent."""

    machine: Machine
    state: Path
    cloud_id: str

    def qemu(self, instance_id: str) -> list[int]:
        """The processes of a guest."""
        uuid = domain_uuid(self.cloud_id, instance_id)
        return [p for p in processes_with(f"{self.state}/") if uuid in command_line(p)]

    def folders(self) -> set[str]:
        """The guests whose files are there."""
        return {p.name for p in self.inside(self.state / "instances").iterdir()} - {"lost+found", FILLER, _KEPT}

    def kept_disks(self) -> list[str]:
        """The removed guests whose disks are set aside, once for each disk."""
        beside, among = self.inside(self.state / "removed-disks"), self.inside(self.state / "instances" / _KEPT)
        return sorted(disk.parent.name.partition("@")[0] for kept in (beside, among) for disk in kept.glob("*/disk.*"))

    def inside(self, path: Path) -> Path:
        """A path as the machine's processes see it."""
        return self.machine.root / path.relative_to("/")

    def assert_only(self, *guests: str) -> None:
        """The machine carries these guests, each of them once, and nothing of any other."""
        assert self.folders() == set(guests)
        domains = [p.name for p in (self.state / "libvirt/etc/qemu").glob("*.xml")]
        assert len(domains) == len(guests), domains
        processes = {g: len(self.qemu(g)) for g in guests}
        assert set(processes.values()) <= {1}, processes
        all_qemu = [p for p in processes_with(f"{self.state}/") if "qemu-system" in command_line(p).split("\0")[0]]
        assert len(all_qemu) == len(guests)
        taps = self._taps()
        assert len(taps) == len(guests), taps

    def wait_step(self, instance_id: str, step: BuildStep, what: Callable[[], str]) -> None:
        """Wait until the build has come so far; returns within milliseconds. ``what``: why it may not have."""
        folder, defined = self.inside(self.state / "instances" / instance_id), self.state / "libvirt/etc/qemu"
        reached: Mapping[BuildStep, Callable[[], bool]] = {
            BuildStep.IMAGE: lambda: any((self.state / "cache").glob("*.qcow2")),
            BuildStep.DISK: (folder / "disk.qcow2").exists,
            BuildStep.DOMAIN: lambda: any(defined.glob(f"*{instance_id}*.xml")),
            BuildStep.PROCESS: lambda: bool(self.qemu(instance_id)),
        }
        deadline = time.monotonic() + 60
        while not reached[step]():
            assert time.monotonic() < deadline, f"no {step}\n{what()}"
            time.sleep(0.001)

    def forget_images(self) -> None:
        """Empty the image cache: the next build fetches its image. The guests keep theirs."""
        for image in (self.state / "cache").glob("*.qcow2"):
            image.unlink()

    def _taps(self) -> list[str]:
        names = (line.split()[0].partition("@")[0] for line in self.machine.run("ip", "-br", "link").splitlines())
        return [n for n in names if n.startswith(tap_prefix(self.cloud_id))]
