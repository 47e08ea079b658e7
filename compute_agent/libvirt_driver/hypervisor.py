"""libvirt as a hypervisor of the agent; libvirt itself is imported only to make the driver."""

from collections.abc import Sequence

from compute_agent.driver import Driver
from compute_agent.hypervisor import MAX_BOOT_THREADS, WAITERS, Hypervisor
from controller.domain.errors import ConfigurationError
from controller.needs import FILES_OF_A_WORKER


class LibvirtHypervisor(Hypervisor):
    """One host: this machine."""

    disk_backends = ("qcow2",)

    def hosts(self, name: str) -> tuple[str, ...]:
        return (name,)

    def drivers(self, hosts: Sequence[str]) -> Sequence[Driver]:  # noqa: ARG002 - there is one
        try:
            from compute_agent.libvirt_driver.driver import LibvirtDriver
        except ImportError as error:
            reason = f"[compute] driver = libvirt needs libvirt-python: pip install 'pileus[compute]' ({error})"
            raise ConfigurationError(reason=reason) from error
        return [LibvirtDriver(self._settings, pause=self._pause)]

    def boot_threads(self) -> int:
        return min(self._settings.compute.workers, MAX_BOOT_THREADS)

    def other_threads(self) -> int:
        return WAITERS

    def open_files(self) -> int:
        return (self.boot_threads() + self.other_threads()) * FILES_OF_A_WORKER

    def may_have_guests(self) -> bool:
        return (self._settings.state_dir / "libvirt").exists() or bool(self._settings.compute.libvirt_uri)
