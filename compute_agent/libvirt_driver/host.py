"""What this host is: how it can run guests, what it offers."""

import os
import re
import shutil
from pathlib import Path

from compute_agent.driver import Capacity
from compute_agent.libvirt_driver.domain_xml import Machine, Virtualization
from controller.conf.settings import Settings

_KVM = Path("/dev/kvm")
_CPUINFO = Path("/proc/cpuinfo")
_MEMINFO = Path("/proc/meminfo")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_GIB = 1024**3
# QEMU's own: code, heap, devices, stacks of its threads; measured, see docs/placement.md. Without KVM its translation
# cache comes on top.
_QEMU_MIB, _XEN_MIB = 32, 16


def kvm_usable(kvm: Path = _KVM, cpuinfo: Path = _CPUINFO) -> bool:
    """Whether KVM works here: the device alone may be there where the CPU has no virtualization, and hang."""
    try:
        os.close(os.open(kvm, os.O_RDWR | os.O_CLOEXEC))
        flags = cpuinfo.read_text()
    except OSError:
        return False
    return re.search(r"^flags\s*:.*\b(svm|vmx)\b", flags, re.MULTILINE) is not None


def machine(settings: Settings) -> Machine:
    """What every guest of this host is run as."""
    kind = settings.compute.domain_type
    if kind == "auto":
        kind = "kvm" if kvm_usable() else "qemu"
    virtualization = Virtualization.XEN_HVM if kind == "xen" else Virtualization(kind)
    cpu = settings.compute.cpu_mode
    if cpu == "auto":
        cpu = "host-model" if virtualization is Virtualization.KVM else ""
    return Machine(
        virtualization,
        cpu=cpu,
        tcg_cache_mib=settings.compute.tcg_cache_mib,
        loader="/usr/lib/xen-4.17/boot/hvmloader",
    )


def capacity(settings: Settings, virtualization: Virtualization, own_disks_bytes: int, kept_bytes: int = 0) -> Capacity:
    """What the host offers; what our own guests' disks take counts as free, for the claims count it. Disks of removed
    guests, which no claim counts, do not."""
    compute = settings.compute
    folder = settings.state_dir if settings.state_dir.is_dir() else Path("/")
    free_gib = (shutil.disk_usage(folder).free + own_disks_bytes) // _GIB
    return Capacity(
        hypervisor="xen" if virtualization.is_xen else virtualization.value,
        vcpus=compute.vcpus or os.cpu_count() or 1,
        memory_mib=compute.memory_mib or max(0, _memory_mib() - compute.reserved_memory_mib),
        disk_gib=max(0, compute.disk_gib - -(-kept_bytes // _GIB)) if compute.disk_gib else free_gib,
        architecture=os.uname().machine,
        guest_overhead_mib=guest_overhead_mib(settings, virtualization),
    )


def guest_overhead_mib(settings: Settings, virtualization: Virtualization) -> int:
    """What the hypervisor needs for each guest beside the guest's own memory."""
    compute = settings.compute
    if compute.guest_overhead_mib >= 0:
        return compute.guest_overhead_mib
    if virtualization.is_xen:
        return _XEN_MIB
    return _QEMU_MIB + (compute.tcg_cache_mib if virtualization is Virtualization.QEMU else 0)


def boot_id() -> str:
    """The kernel's name for the time since the last boot."""
    return _BOOT_ID.read_text().strip()


def _memory_mib() -> int:
    found = re.search(r"^MemTotal:\s*(\d+) kB", _MEMINFO.read_text(), re.MULTILINE)
    return int(found[1]) // 1024 if found else 0
