"""A simulated site as a hypervisor of the agent: many hosts in one process, on hardware that is a file."""

from collections.abc import Sequence

from compute_agent.driver import Driver
from compute_agent.hypervisor import MAX_BOOT_THREADS, WAITERS, Hypervisor
from compute_agent.simulated.driver import SimulatedDriver, SimulatedSite
from controller.needs import FILES_OF_SQLITE


class SimulatedHypervisor(Hypervisor):
    """Hosts with the name of this machine and a number."""

    disk_backends = ("simulated",)
    is_simulated = True
    _site: SimulatedSite | None = None

    def hosts(self, name: str) -> tuple[str, ...]:
        return tuple(f"{name}-{number:04d}" for number in range(1, self._settings.compute.simulated_hosts + 1))

    def drivers(self, hosts: Sequence[str]) -> Sequence[Driver]:
        self._site = site = SimulatedSite(self._settings.state_dir / "agent" / "simulated.db")
        return [SimulatedDriver(host, self._settings.compute, site, pause=self._pause) for host in hosts]

    def boot_threads(self) -> int:
        conf = self._settings.compute
        if not conf.simulated_boot_s:
            return 1  # no work takes time: more threads would only wait for each other
        return min(conf.workers * conf.simulated_hosts, MAX_BOOT_THREADS)

    def other_threads(self) -> int:
        return WAITERS if self._settings.compute.simulated_boot_s else 1

    def open_files(self) -> int:
        return FILES_OF_SQLITE  # all hosts share one file

    def may_have_guests(self) -> bool:
        return True

    def close(self) -> None:
        if self._site is not None:
            self._site.close()
