"""A guest as libvirt's domain XML (https://libvirt.org/formatdomain.html): built and read as a tree."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from compute_agent.storage.backend import Disk
from controller.domain.messages import GuestSpec

# Names that libvirt takes as a CPU mode; any other is a model.
_CPU_MODES = ("host-model", "host-passthrough", "maximum")
_TITLE_CHARS = 100
# Every image boots on it by BIOS, and as fast as on q35 under TCG.
_PC = "pc"
_NOCLOUD = "ds=nocloud-net;s=http://169.254.169.254/nocloud/"


class Virtualization(StrEnum):
    """How a guest is run."""

    KVM = "kvm"
    QEMU = "qemu"
    XEN_PV = "xen-pv"
    XEN_PVH = "xen-pvh"
    XEN_HVM = "xen-hvm"

    @property
    def is_xen(self) -> bool:
        return self.value.startswith("xen")


@dataclass(frozen=True)
class Machine:
    """What this host makes of every guest.

    ``cpu`` is a libvirt CPU mode or model, empty for the hypervisor's default. ``kernel`` is the boot stub
    (GRUB for Xen) that a PV or PVH guest begins with; ``loader`` is Xen's hvmloader.
    """

    virtualization: Virtualization
    cpu: str = ""
    tcg_cache_mib: int = 0
    kernel: str = ""
    loader: str = ""


@dataclass(frozen=True)
class Nic:
    """One interface: the bridge it is plugged into and the name of its tap on the host."""

    mac: str
    bridge: str
    tap: str


def build(spec: GuestSpec, *, uuid: str, machine: Machine, disk: Disk, nics: Sequence[Nic], console: Path) -> str:
    """The XML of a guest; the same arguments give the same text."""
    xen = machine.virtualization.is_xen
    domain = ET.Element("domain", type="xen" if xen else machine.virtualization.value)
    _text(domain, "name", spec.instance_id)
    _text(domain, "uuid", uuid)
    if title := _printable(spec.name):
        _text(domain, "title", title)
    _text(domain, "memory", str(spec.memory_mib), unit="MiB")
    _text(domain, "vcpu", str(spec.vcpus))
    _add_os(domain, spec, machine)
    _add_features(domain, machine)
    _add_cpu(domain, machine)
    ET.SubElement(domain, "clock", offset="utc")
    _text(domain, "on_poweroff", "destroy")
    _text(domain, "on_reboot", "restart")
    _text(domain, "on_crash", "destroy")
    devices = ET.SubElement(domain, "devices")
    _add_disk(devices, disk, xen)
    for nic in nics:
        _add_nic(devices, nic, xen)
    _add_console(devices, console, machine.virtualization)
    if not xen:
        _add_quiet_devices(devices)
    ET.indent(domain)
    return ET.tostring(domain, encoding="unicode") + "\n"


def disk_paths(xml: str) -> tuple[Path, ...]:
    """The files and block devices of a domain's disks."""
    sources = ET.fromstring(xml).iterfind("./devices/disk/source")  # noqa: S314 - libvirt's own words
    return tuple(Path(path) for s in sources if (path := s.get("file") or s.get("dev")))


def console_path(xml: str) -> Path | None:
    """The file that a domain's serial console is written to."""
    source = ET.fromstring(xml).find("./devices/serial[@type='file']/source")  # noqa: S314 - libvirt's own words
    path = None if source is None else source.get("path")
    return Path(path) if path else None


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> ET.Element:
    element = ET.SubElement(parent, tag, attributes)
    element.text = text
    return element


def _printable(name: str) -> str:
    """The name without what XML 1.0 or libvirt does not allow in a title."""
    return re.sub(r"[^\w .,:;+@()-]", "", name, flags=re.ASCII).strip()[:_TITLE_CHARS]


def _add_os(domain: ET.Element, spec: GuestSpec, machine: Machine) -> None:
    os = ET.SubElement(domain, "os")
    match machine.virtualization:
        case Virtualization.XEN_PV:
            _text(os, "type", "linux", arch=spec.architecture, machine="xenpv")
            _text(os, "kernel", machine.kernel)
        case Virtualization.XEN_PVH:
            _text(os, "type", "xenpvh", arch=spec.architecture, machine="xenpvh")
            _text(os, "kernel", machine.kernel)
        case Virtualization.XEN_HVM:
            _text(os, "type", "hvm", arch=spec.architecture, machine="xenfv")
            _text(os, "loader", machine.loader, type="rom")
            ET.SubElement(os, "boot", dev="hd")
        case Virtualization.KVM | Virtualization.QEMU:
            _text(os, "type", "hvm", arch=spec.architecture, machine=_PC)
            ET.SubElement(os, "boot", dev="hd")
            ET.SubElement(os, "smbios", mode="sysinfo")
            _add_identity(domain)


def _add_identity(domain: ET.Element) -> None:
    """What cloud-init looks for in the SMBIOS to know, without configuration, where its metadata is
    (https://docs.cloud-init.io/en/latest/reference/datasources/nocloud.html)."""
    system = ET.SubElement(ET.SubElement(domain, "sysinfo", type="smbios"), "system")
    _text(system, "entry", "Pileus", name="manufacturer")
    _text(system, "entry", "Pileus", name="product")
    _text(system, "entry", _NOCLOUD, name="serial")


def _add_features(domain: ET.Element, machine: Machine) -> None:
    kind = machine.virtualization
    if kind in (Virtualization.XEN_PV, Virtualization.XEN_PVH):
        return
    features = ET.SubElement(domain, "features")
    ET.SubElement(features, "acpi")
    ET.SubElement(features, "apic")
    if kind is Virtualization.QEMU and machine.tcg_cache_mib:
        _text(ET.SubElement(features, "tcg"), "tb-cache", str(machine.tcg_cache_mib), unit="MiB")


def _add_cpu(domain: ET.Element, machine: Machine) -> None:
    if not machine.cpu:
        return
    if machine.cpu in _CPU_MODES:
        ET.SubElement(domain, "cpu", mode=machine.cpu)
        return
    cpu = ET.SubElement(domain, "cpu", mode="custom", match="exact")
    _text(cpu, "model", machine.cpu, fallback="forbid")


def _add_disk(devices: ET.Element, disk: Disk, xen: bool) -> None:
    element = ET.SubElement(devices, "disk", type="block" if disk.block else "file", device="disk")
    driver = ET.SubElement(element, "driver", name="qemu", type=disk.format)
    if not xen:
        driver.set("cache", "none" if disk.block else "writeback")
        driver.set("discard", "unmap")
    ET.SubElement(element, "source", {"dev" if disk.block else "file": str(disk.path)})
    ET.SubElement(element, "target", dev="xvda" if xen else "vda", bus="xen" if xen else "virtio")


def _add_nic(devices: ET.Element, nic: Nic, xen: bool) -> None:
    element = ET.SubElement(devices, "interface", type="bridge")
    ET.SubElement(element, "mac", address=nic.mac)
    ET.SubElement(element, "source", bridge=nic.bridge)
    ET.SubElement(element, "target", dev=nic.tap)
    if not xen:
        ET.SubElement(element, "model", type="virtio")
        # No boot ROM: the disk boots, and each guest starts sooner.
        ET.SubElement(element, "rom", enabled="no")


def _add_console(devices: ET.Element, console: Path, kind: Virtualization) -> None:
    if kind in (Virtualization.XEN_PV, Virtualization.XEN_PVH):
        # xenconsoled writes it down; libxl has no file console for these.
        element = ET.SubElement(devices, "console", type="pty")
        ET.SubElement(element, "target", type="xen", port="0")
        return
    serial = ET.SubElement(devices, "serial", type="file")
    ET.SubElement(serial, "source", path=str(console), append="on")
    ET.SubElement(serial, "target", port="0")


def _add_quiet_devices(devices: ET.Element) -> None:
    """Randomness for keys at the first boot; and none of what libvirt would add that no server needs."""
    rng = ET.SubElement(devices, "rng", model="virtio")
    _text(rng, "backend", "/dev/urandom", model="random")
    ET.SubElement(devices, "controller", type="usb", model="none")
    ET.SubElement(devices, "memballoon", model="none")
