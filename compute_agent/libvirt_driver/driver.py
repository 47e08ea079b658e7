"""Guests under libvirt: KVM, or QEMU without it.

Domains are persistent: after a restart of libvirtd or a reboot of the host each is still defined, and
``destroy`` undefines it.
"""

import shutil
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import libvirt
import structlog

from compute_agent.bridges import Bridges
from compute_agent.driver import Capacity, Driver, Found, Pause
from compute_agent.errors import GuestStarting
from compute_agent.images.cache import ImageCache
from compute_agent.libvirt_driver import console_log, cpu_time, domain_xml, domains, host, libvirtd
from compute_agent.libvirt_driver.connection import Connections, answers
from compute_agent.libvirt_driver.hypervisor import LibvirtHypervisor
from compute_agent.libvirt_driver.off_cause import off_cause
from compute_agent.libvirt_driver.power_button import PowerButton
from compute_agent.storage.backend import Disk, instance_folder
from compute_agent.storage.backends import make_disks
from controller.conf.settings import Settings
from controller.domain.errors import DriverError
from controller.domain.guests import OffCause, Power
from controller.domain.ids import domain_uuid, instance_of_uuid
from controller.domain.messages import GuestSpec, KeptDisk
from controller.domain.names import tap_name
from controller.programs import systemctl

log = structlog.get_logger(__name__)

_GIB = 1024**3
_POLL_S = 0.1
# A guest that is still booting misses the button; press it again.
_PRESS_AGAIN_S = 5.0
_PRESSED_MAX_S = 30.0
_DESTROYED_AT_ONCE = 8
_STARTING_MAX_S = 30.0
_STARTING = [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP]
_HALTED_BY_DISK = [libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR]


class LibvirtDriver(Driver):
    """Guests of one cloud on this host: ``<state>/instances/<id>/`` holds the disk and the console."""

    def __init__(self, settings: Settings, pause: Pause = time.sleep) -> None:
        self._settings = settings
        self._cloud_id = settings.general.cloud_id
        self._pause = pause
        self._machine = host.machine(settings)
        # Absolute: libvirt and QEMU run elsewhere.
        self._instances = settings.state_dir.absolute() / "instances"
        self._disks = make_disks(LibvirtHypervisor.disk_backends[0], self._instances)
        self._bridges = Bridges(self._cloud_id, settings.network.trunk)
        self._images = ImageCache(
            settings.state_dir.absolute() / "cache",
            settings.image_store,
            settings.compute.image_cache_max_gib * _GIB,
            self._disks.images_in_use,
            pause,
        )
        self._connections = Connections(libvirtd.uri(settings), lambda: libvirtd.ensure(settings, answers))

    @property
    def boot_id(self) -> str:
        return host.boot_id()

    def capacity(self) -> Capacity:
        return host.capacity(self._settings, self._machine.virtualization, self._disks.used_bytes(), self._kept_bytes())

    def images(self) -> tuple[str, ...]:
        return self._images.images()

    def remove_images(self, checksums: Collection[str]) -> None:
        self._images.remove(checksums)

    def list_guests(self) -> Mapping[str, Power]:
        with self._connections.use("Listing the guests") as connection:
            # All first: a guest that starts between the two calls is in both.
            known = [d.UUIDString() for d in connection.listAllDomains()]
            active = {d.UUIDString() for d in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)}
        return {
            instance_id: Power.RUNNING if uuid in active else Power.SHUT_OFF
            for uuid in known
            if (instance_id := instance_of_uuid(self._cloud_id, uuid)) is not None
        }

    def why_off(self, instance_ids: Collection[str]) -> Mapping[str, OffCause]:
        if systemctl.machine_is_stopping():  # it may press its guests' power buttons then
            return {}
        with self._connections.use("Asking why guests are off") as connection:
            states = {i: domains.state(d) for i in instance_ids if (d := self._find(connection, i)) is not None}
        logs = None if self._machine.virtualization.is_xen else libvirtd.guest_logs(self._settings)
        return {i: off_cause(state, logs and logs / f"{i}.log") for i, state in states.items()}

    def find_all(self) -> Found:
        return Found(self.list_guests(), self._disks.list(), self._bridges.taps())

    def remove_taps(self, taps: Collection[str]) -> None:
        self._bridges.remove_unused_taps(taps)

    def spawn(self, spec: GuestSpec) -> None:
        if spec.image is None:
            raise DriverError(what="Making the guest", reason="no image was named")
        with self._connections.use("Looking for the guest") as connection:
            if self._runs(self._find(connection, spec.instance_id)):
                return
        with ExitStack() as undo:
            disk = self._disks.find(spec.instance_id)
            # A disk that was there may be that of a guest which has run: only what this call makes is undone.
            undo.callback(self._undo_spawn if disk is None else self._undo_start, spec.instance_id)
            if disk is None:
                with self._images.held(spec.image) as base:
                    disk = self._disks.create(spec.instance_id, base, spec.disk_gib)
            self._run(spec, disk)
            undo.pop_all()

    def start(self, spec: GuestSpec) -> None:
        disk = self._disks.find(spec.instance_id)
        if disk is None:
            raise DriverError(what="Starting the guest", reason="its disk is gone")
        self._run(spec, disk)

    def shut_off(self, instance_id: str, grace_s: float) -> None:
        deadline = time.monotonic() + grace_s
        press_at = time.monotonic()
        button = PowerButton(lambda: self._press_power_button(instance_id))
        with self._connections.use("Shutting the guest off") as connection:
            domain = self._find(connection, instance_id)
            while domain is not None and domains.is_active(domain):
                now = time.monotonic()
                if now >= deadline:
                    log.info("guest did not power off, its power is taken", instance=instance_id, grace_s=grace_s)
                    domains.take_power(domain)
                    break
                if now >= press_at:
                    button.press()
                    press_at = now + _PRESS_AGAIN_S
                self._pause(_POLL_S)
        if not button.let_go(_PRESSED_MAX_S):  # it would reach the guest after its next start
            raise DriverError(what="Shutting the guest off", reason="libvirt still waits for an answer of the guest")

    def reboot(self, spec: GuestSpec, grace_s: float) -> None:
        self.shut_off(spec.instance_id, grace_s)
        self.start(spec)

    def destroy(self, instance_id: str, *, keep: datetime | None = None) -> None:
        if keep is None:
            self._remove(instance_id)
            self._drop_kept(lambda disk: disk.instance_id == instance_id)
            return
        self._remove_domain(instance_id)
        self._bridges.remove_tap(instance_id)
        self._disks.set_aside(instance_id, keep)
        self._remove_folder(instance_id)

    def kept(self) -> Sequence[KeptDisk]:
        return self._disks.kept()

    def prune_kept(self, before: datetime) -> None:
        self._drop_kept(lambda disk: datetime.fromisoformat(disk.removed_at) < before)

    def _drop_kept(self, is_dropped: Callable[[KeptDisk], bool]) -> None:
        for disk in filter(is_dropped, self._disks.kept()):
            self._disks.drop_kept(disk)

    def _kept_bytes(self) -> int:
        return sum(disk.size_bytes for disk in self._disks.kept())

    def _remove(self, instance_id: str) -> None:
        """The guest with its disk, but not what was set aside of it."""
        self._remove_domain(instance_id)
        self._bridges.remove_tap(instance_id)
        self._remove_folder(instance_id)

    def _remove_domain(self, instance_id: str) -> None:
        with self._connections.use("Destroying the guest") as connection:
            domain = self._find(connection, instance_id)
            if domain is not None:
                domains.take_power(domain)
                domains.undefine(domain)
                if self._find(connection, instance_id) is not None:
                    raise DriverError(what="Destroying the guest", reason="libvirt keeps its domain")

    def wanted_cpu_s(self, instance_ids: Iterable[str]) -> Mapping[str, float]:
        with self._connections.use("Looking at guests that boot") as connection:
            found = {i: d for i in instance_ids if (d := self._find(connection, i)) is not None}
            wanted = cpu_time.wanted_cpu_s(connection, list(found.values()))
        uuids = {i: domain_uuid(self._cloud_id, i) for i in found}
        return {i: wanted[uuid] for i, uuid in uuids.items() if uuid in wanted}

    def console(self, instance_id: str, max_bytes: int) -> bytes:
        return console_log.read_end(instance_folder(self._instances, instance_id), max_bytes)

    def tidy(self) -> None:
        for instance_id in self._disks.list():
            console_log.rotate(self._instances / instance_id, self._settings.compute.console_max_bytes)
        self._let_go_on()
        self._images.evict()

    def destroy_all(self) -> None:
        guests = set(self.list_guests()) | self._disks.list()
        with ThreadPoolExecutor(_DESTROYED_AT_ONCE, "destroy") as pool:
            for done in [pool.submit(self.destroy, g) for g in guests]:
                done.result()
        self._drop_kept(lambda _: True)
        self._bridges.remove_all()

    def close(self) -> None:
        """Close the connections to libvirt; the guests run on."""
        self._connections.close()

    def _let_go_on(self) -> None:
        """QEMU halts a guest whose write finds no space on the host. It tries that write again; without space it halts
        once more, and nothing is lost."""
        with self._connections.use("Letting halted guests go on") as connection:
            for domain in connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_PAUSED):
                instance_id = instance_of_uuid(self._cloud_id, domain.UUIDString())
                if instance_id is not None and domains.state(domain) == _HALTED_BY_DISK:
                    log.warning("guest was halted by a failed write to its disk, it goes on", instance=instance_id)
                    domains.unless_gone(domain.resume)

    def _undo_spawn(self, instance_id: str) -> None:
        """Never the files of a domain that may still run: what cannot be undone now, ``destroy`` removes. What was set
        aside of an earlier guest of this id stays: only its owner's delete removes that."""
        try:
            self._remove(instance_id)
        except DriverError as error:
            log.warning("incomplete guest left behind", instance=instance_id, reason=str(error))

    def _undo_start(self, instance_id: str) -> None:
        """Leave the disk."""
        try:
            self._remove_domain(instance_id)
            self._bridges.remove_tap(instance_id)
        except DriverError as error:
            log.warning("guest whose start failed left behind", instance=instance_id, reason=str(error))

    def _run(self, spec: GuestSpec, disk: Disk) -> None:
        with self._connections.use("Starting the guest") as connection:
            domain = self._find(connection, spec.instance_id)
            if self._runs(domain):
                return
            nics = self._plug(spec)
            if domain is None:
                domain = connection.defineXML(self._xml(spec, disk, nics))
            try:
                domain.create()
            except libvirt.libvirtError as error:
                # It was started meanwhile: it runs, which is what was asked.
                if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID or not self._runs(domain):
                    raise

    def _runs(self, domain: "libvirt.virDomain | None") -> bool:
        """Whether the guest runs; waits for a start that is on its way: it may still fail.

        Raises:
            GuestStarting: it takes too long. WorkAbandoned: the agent is stopping.
        """
        deadline = time.monotonic() + _STARTING_MAX_S
        # One question: between two of them a start may fail.
        while domain is not None and (state := domains.state(domain)) and state[0] != libvirt.VIR_DOMAIN_SHUTOFF:
            if state != _STARTING:
                return True
            if time.monotonic() >= deadline:
                raise GuestStarting(what="Starting the guest", reason="libvirt has been starting it for too long")
            self._pause(_POLL_S)
        return False

    def _press_power_button(self, instance_id: str) -> None:
        with self._connections.use("Pressing the guest's power button") as connection:
            domain = self._find(connection, instance_id)
            if domain is not None:
                domains.unless_gone(lambda: domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN))

    def _plug(self, spec: GuestSpec) -> list[domain_xml.Nic]:
        return [
            domain_xml.Nic(nic.mac, self._bridges.ensure(nic.vlan), tap_name(self._cloud_id, spec.instance_id, i))
            for i, nic in enumerate(spec.nics)
        ]

    def _xml(self, spec: GuestSpec, disk: Disk, nics: list[domain_xml.Nic]) -> str:
        return domain_xml.build(
            spec,
            uuid=domain_uuid(self._cloud_id, spec.instance_id),
            machine=self._machine,
            disk=disk,
            nics=nics,
            console=self._instances / spec.instance_id / console_log.NAME,
        )

    def _find(self, connection: "libvirt.virConnect", instance_id: str) -> "libvirt.virDomain | None":
        try:
            return connection.lookupByUUIDString(domain_uuid(self._cloud_id, instance_id))
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise

    def _remove_folder(self, instance_id: str) -> None:
        self._disks.remove(instance_id)
        folder: Path = instance_folder(self._instances, instance_id)
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            return
        except OSError as error:
            raise DriverError(what="Removing the guest's files", reason=str(error)) from error
