"""What a host offers: what is configured, else what the machine has."""

import os
from dataclasses import replace
from pathlib import Path

from compute_agent.libvirt_driver import host
from compute_agent.libvirt_driver.domain_xml import Virtualization
from controller.conf.settings import Compute, General, Settings


def test_kvm_needs_the_device_and_the_cpu(tmp_path: Path) -> None:
    device, cpuinfo = tmp_path / "kvm", tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nflags\t\t: fpu vmx sse\n")
    assert not host.kvm_usable(device, cpuinfo)
    device.touch()
    assert host.kvm_usable(device, cpuinfo)
    cpuinfo.write_text("processor : 0\nflags\t\t: fpu sse vmxfoo\nbugs : svm\n")
    assert not host.kvm_usable(device, cpuinfo)


def test_capacity_is_what_is_configured_else_what_is_there(tmp_path: Path) -> None:
    settings = replace(Settings(), general=General(state_dir=str(tmp_path)))
    there = host.capacity(settings, Virtualization.QEMU, 0)
    assert (there.hypervisor, there.vcpus) == ("qemu", os.cpu_count())
    assert host.capacity(settings, Virtualization.QEMU, 7 * 1024**3).disk_gib - there.disk_gib in (6, 7, 8)
    told = replace(settings, compute=Compute(vcpus=3, memory_mib=4, disk_gib=5))
    assert host.capacity(told, Virtualization.XEN_PV, 0).hypervisor == "xen"
    assert host.capacity(told, Virtualization.KVM, 0).memory_mib == 4
