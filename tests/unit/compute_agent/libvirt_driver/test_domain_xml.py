"""Domain XML against golden files: ``PILEUS_GOLDEN=write`` writes them anew, for a look at the difference."""

import os
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compute_agent.libvirt_driver import domain_xml
from compute_agent.libvirt_driver.domain_xml import Machine, Nic, Virtualization
from compute_agent.storage.backend import Disk
from controller.domain.ids import domain_uuid
from controller.domain.messages import GuestSpec
from tests.labs.agent import guest, instance

GOLDEN = Path(__file__).parents[2] / "golden" / "domains"
CONSOLE = Path("/state/instances/x/console.log")
FILE = Disk(Path("/state/instances/x/disk.qcow2"), "qcow2")
MACHINES = {
    "kvm": Machine(Virtualization.KVM, cpu="host-model", tcg_cache_mib=32),
    "kvm-named-cpu": Machine(Virtualization.KVM, cpu="Skylake-Server"),
    "qemu": Machine(Virtualization.QEMU, tcg_cache_mib=32),
    "xen-pv": Machine(Virtualization.XEN_PV, kernel="/usr/lib/grub-xen/grub-x86_64-xen.bin"),
    "xen-pvh": Machine(Virtualization.XEN_PVH, kernel="/usr/lib/grub-xen/grub-i386-xen_pvh.bin"),
    "xen-hvm": Machine(Virtualization.XEN_HVM, loader="/usr/lib/xen-4.17/boot/hvmloader"),
}


def build(machine: Machine, spec: GuestSpec | None = None, disk: Disk = FILE, nics: int = 1) -> str:
    return domain_xml.build(
        spec or guest(1),
        uuid=domain_uuid("abcdef01", instance(1)),
        machine=machine,
        disk=disk,
        nics=[Nic(f"02:00:00:00:00:{n:02x}", f"plabcdb{100 + n}", f"plabcdt0000000{n}") for n in range(1, nics + 1)],
        console=CONSOLE,
    )


CASES = {
    **{name: build(machine) for name, machine in MACHINES.items()},
    "qemu-block-disk-two-nics": build(MACHINES["qemu"], disk=Disk(Path("/dev/vg/x"), "raw", True), nics=2),
}


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    path = GOLDEN / f"{name}.xml"
    if os.environ.get("PILEUS_GOLDEN") == "write":
        path.write_text(CASES[name])
    assert CASES[name] == path.read_text()


def test_every_golden_file_has_a_case() -> None:
    assert {p.stem for p in GOLDEN.glob("*.xml")} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_disk_and_console_are_read_back(name: str) -> None:
    disk = "/dev/vg/x" if "block" in name else str(FILE.path)
    assert domain_xml.disk_paths(CASES[name]) == (Path(disk),)
    has_file = not name.startswith(("xen-pv", "xen-pvh"))
    assert domain_xml.console_path(CASES[name]) == (CONSOLE if has_file else None)


@given(st.text())
def test_no_name_breaks_the_xml(name: str) -> None:
    tree = ET.fromstring(build(MACHINES["qemu"], guest(1, name=name)))
    assert tree.findtext("name") == instance(1)
    assert len(tree.findall("devices")) == 1
