"""What an agent asks of a hypervisor."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from controller.domain.guests import OffCause, Power
from controller.domain.messages import GuestSpec, KeptDisk

# Waits so many seconds; raises WorkAbandoned when the agent is to stop.
Pause = Callable[[float], None]


@dataclass(frozen=True)
class Capacity:
    """What a host offers; the agent reports it with every heartbeat.

    ``guest_overhead_mib`` is what the hypervisor needs for each guest beside the guest's own memory.
    """

    hypervisor: str
    vcpus: int
    memory_mib: int
    disk_gib: int
    architecture: str = "x86_64"
    guest_overhead_mib: int = 0


@dataclass(frozen=True)
class Found:
    """What there is of this cloud on a host; ``disks`` are the instances that have one, or what is left of one."""

    guests: Mapping[str, Power]
    disks: Collection[str] = ()
    taps: Collection[str] = ()


class Driver(ABC):
    """One hypervisor on this host, and the disks, consoles and interfaces of its guests.

    Every method is idempotent and never called twice at once for one guest, but at once for many guests.
    A driver keeps no state of its own: ``list_guests`` is right after a restart of the agent.
    It sees the guests of its own cloud only and never touches another.

    Every method may raise ``DriverError``; ``retriable`` says whether the same call may succeed later.
    ``WorkAbandoned`` comes out of a wait when the agent is stopping.
    """

    @property
    @abstractmethod
    def boot_id(self) -> str:
        """Another one after each boot of the host: then no guest runs that ran before."""

    @abstractmethod
    def capacity(self) -> Capacity:
        """What this host has to offer to guests, whatever already runs on it."""

    @abstractmethod
    def list_guests(self) -> Mapping[str, Power]:
        """Every guest of this cloud on this host by its instance id, running or not."""

    def why_off(self, instance_ids: Collection[str]) -> Mapping[str, OffCause]:  # noqa: ARG002 - see below
        """Why these guests are off that no request has shut off; guests of which nothing is known are left out.

        SHUTDOWN only where the guest surely powered itself off: its owner may have asked to have it deleted then.
        """
        return {}

    @abstractmethod
    def find_all(self) -> Found:
        """All that a guest leaves on this host, looked up on the host itself: for the auditor."""

    @abstractmethod
    def spawn(self, spec: GuestSpec) -> None:
        """Make a guest from its image and start it; a running guest with this id is left alone.

        On error all that this call made has been removed again, and nothing else.

        Raises:
            ImageFetchError: its image cannot be had. DiskError: it does not fit, no room.
        """

    @abstractmethod
    def start(self, spec: GuestSpec) -> None:
        """Start a guest that was made before, with the disk it has; a running one is left alone.

        A guest that the hypervisor has forgotten is defined anew; one whose disk is gone is not made again.
        """

    @abstractmethod
    def shut_off(self, instance_id: str, grace_s: float) -> None:
        """Ask the guest to power off; after ``grace_s`` take its power. Absent or off: nothing to do."""

    @abstractmethod
    def reboot(self, spec: GuestSpec, grace_s: float) -> None:
        """Shut the guest off and start it again; one that is off is started."""

    @abstractmethod
    def destroy(self, instance_id: str, *, keep: datetime | None = None) -> None:
        """Remove the guest with its domain, disk, interfaces and console; absent is fine.

        With a time to ``keep`` it by, the disk is set aside instead; without, what was set aside of it goes too.
        """

    @abstractmethod
    def kept(self) -> Sequence[KeptDisk]:
        """The disks that were set aside; cheap, as each heartbeat names them."""

    @abstractmethod
    def prune_kept(self, before: datetime) -> None:
        """Remove the disks that were set aside before that time."""

    @abstractmethod
    def console(self, instance_id: str, max_bytes: int) -> bytes:
        """The end of what the guest wrote to its serial console; empty when there is none."""

    @abstractmethod
    def destroy_all(self) -> None:
        """Remove every guest of this cloud on this host, and what else the driver made for them."""

    def remove_taps(self, taps: Collection[str]) -> None:  # noqa: B027 - where there are none
        """Remove those of these interfaces that are taps of this cloud and that no process holds open."""

    def wanted_cpu_s(self, instance_ids: Iterable[str]) -> Mapping[str, float]:  # noqa: ARG002 - see below
        """Seconds of one core that each of these guests has used, or waited for, since it was started.

        A guest that does not run is left out. Empty if the driver cannot measure.
        """
        return {}

    def images(self) -> tuple[str, ...]:
        """The checksums of the images that need no fetching."""
        return ()

    def remove_images(self, checksums: Collection[str]) -> None:  # noqa: B027 - nothing is cached
        """Remove images from the cache; one that a guest's disk needs, or that is being fetched, stays."""

    def tidy(self) -> None:  # noqa: B027 - nothing to do is a good answer
        """Now and then: rotate consoles and the like; cheap when there is nothing to do."""

    def close(self) -> None:  # noqa: B027 - as above
        """Let go of the hypervisor; the guests run on."""
