"""The kinds of hypervisors that ``[compute] driver`` can name."""

import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar

from compute_agent.driver import Driver, Pause
from controller.conf.settings import Settings

# Names of classes: only the one that is configured is imported, and a simulated site has no libvirt.
HYPERVISORS: Mapping[str, str] = MappingProxyType(
    {
        "libvirt": "compute_agent.libvirt_driver.hypervisor:LibvirtHypervisor",
        "simulated": "compute_agent.simulated.hypervisor:SimulatedHypervisor",
    }
)
# The most threads for boots in one process, whatever is configured.
MAX_BOOT_THREADS = 64
# Threads for shutting off, rebooting and removing, which mostly wait for the guest: boots do not wait for them.
WAITERS = 16


class Hypervisor(ABC):
    """Makes the drivers of the hosts of this process. To make a hypervisor is cheap: only ``drivers`` connects to it.

    ``disk_backends`` are what heartbeats name; ``is_simulated``: hosts are numbered, any many of them in one process,
    and their guests share no cores.
    """

    disk_backends: ClassVar[tuple[str, ...]]
    is_simulated: ClassVar[bool] = False

    def __init__(self, settings: Settings, pause: Pause) -> None:
        self._settings = settings
        self._pause = pause

    @abstractmethod
    def hosts(self, name: str) -> tuple[str, ...]:
        """The names of the hosts of this process; ``name`` is this machine's."""

    @abstractmethod
    def drivers(self, hosts: Sequence[str]) -> Sequence[Driver]:
        """A driver for each host.

        Raises:
            ConfigurationError: its library is not installed. Unavailable, DriverError: it cannot be reached.
        """

    @abstractmethod
    def boot_threads(self) -> int:
        """How many threads start guests."""

    @abstractmethod
    def other_threads(self) -> int:
        """How many threads do all other work on guests."""

    @abstractmethod
    def open_files(self) -> int:
        """How many files its drivers may have open at once."""

    @abstractmethod
    def may_have_guests(self) -> bool:
        """Whether there may be guests of this cloud, or anything that was made for them."""

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Close what the drivers share; the guests run on."""


def make_hypervisor(settings: Settings, pause: Pause) -> Hypervisor:
    """The hypervisor that is configured."""
    made: Hypervisor = pkgutil.resolve_name(HYPERVISORS[settings.compute.driver])(settings, pause)
    return made
