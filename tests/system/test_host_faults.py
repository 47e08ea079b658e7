"""The parts of a host fail under real guests.

One cloud in one process on one machine of its own; two guests run from the first test to the last.
"""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.domain.names import nft_table
from controller.domain.states import State
from tests.faults import Row, each_row, row
from tests.labs.system.faults_lab import FaultsLab, Guest, GuestsUntouched, kill
from tests.labs.system.first_cloud import METADATA
from tests.labs.system.host_guests import BuildStep

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

_ASK_METADATA = f"timeout 3 wget -q -O - http://{METADATA}/latest/meta-data/instance-id"
_ASK_DHCP = "timeout 20 busybox udhcpc -i eth0 -f -n -q -t 10 -T 1 -s /bin/true 2>&1"
_BUILT_ONCE = "built once and ACTIVE after the next start; when it is terminated no domain, disk or tap is left"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultsLab]:
    with FaultsLab(tmp_path_factory.mktemp("host-faults"), programs=Path(sys.executable).parent) as made:
        yield made


@pytest.fixture(scope="module")
def guests(lab: FaultsLab) -> list[Guest]:
    return lab.boot(2)


@pytest.fixture(autouse=True)
def nothing_is_left(lab: FaultsLab, guests: list[Guest]) -> Iterator[None]:
    """After each test: the two guests and nothing else."""
    yield
    ids = [g.id for g in guests]
    assert {i for i, s in lab.states().items() if s is not State.DELETED} == set(ids)
    lab.host.assert_only(*ids)
    lab.assert_clean()


@row(
    fault="kill -9 of libvirtd",
    strikes="guests run",
    seen="the agent starts another; it finds the guests, which noticed nothing",
)
def test_libvirtd_killed_under_guests(lab: FaultsLab, guests: list[Guest]) -> None:
    with GuestsUntouched(lab, *guests):
        (before,) = lab.libvirtd()
        kill(before)
        lab.wait(lambda: len(lab.libvirtd()) == 1)
        lab.wait_state(State.ACTIVE, *(g.id for g in guests))


@each_row(
    "step",
    {
        "disk": Row("kill -9 of libvirtd", "a build has its disk", "the agent starts another and goes on: ACTIVE"),
        "domain": Row("kill -9 of libvirtd", "a build has its domain", "the agent starts another and goes on: ACTIVE"),
    },
)
def test_libvirtd_killed_in_a_build(lab: FaultsLab, guests: list[Guest], step: str) -> None:
    with GuestsUntouched(lab, *guests):
        (asked,) = lab.ask()
        lab.wait_step(asked, BuildStep(step))
        for pid in lab.libvirtd():
            kill(pid)
        lab.wait_state(State.ACTIVE, asked)
        lab.host.assert_only(asked, *(g.id for g in guests))
        lab.terminate(asked)


@row(
    fault="kill -9 of a guest's QEMU",
    strikes="the guest runs",
    seen="STOPPED, and says why; started again it runs with the same disk and address; the others run on",
)
def test_a_killed_qemu(lab: FaultsLab, guests: list[Guest]) -> None:
    with GuestsUntouched(lab, *guests):
        (victim,) = lab.boot()
        lab.shell.run(victim.address, "echo kept >/root/kept; sync")
        (pid,) = lab.qemu(victim.id)
        os.kill(pid, signal.SIGKILL)
        lab.wait_state(State.STOPPED, victim.id)
        assert "its process ended" in lab.cloud.pileus("instance", "explain", victim.id)
        lab.cloud.ec2.start_instances(InstanceIds=[victim.id])
        (again,) = lab.booted([victim.id])
        assert again == victim
        assert lab.shell.run(victim.address, "cat /root/kept") == "kept\n"
        lab.terminate(victim.id)


@row(
    fault="SIGTERM of a guest's QEMU, then the guest powers itself off",
    strikes="the guest runs; it is to be terminated when it powers itself off",
    seen="the signal is no shutdown of the guest's: STOPPED, with its disk; its own shutdown terminates it",
)
def test_a_guest_that_powers_itself_off(lab: FaultsLab, guests: list[Guest]) -> None:
    with GuestsUntouched(lab, *guests):
        asked = lab.ask(InstanceInitiatedShutdownBehavior="terminate")
        (victim,) = lab.booted(asked)
        lab.shell.run(victim.address, "echo kept >/root/kept; sync")
        (pid,) = lab.qemu(victim.id)
        os.kill(pid, signal.SIGTERM)
        lab.wait_state(State.STOPPED, victim.id)
        assert lab.cloud.machine(victim.id)["StateReason"]["Code"] == "Server.InternalError"
        lab.cloud.ec2.start_instances(InstanceIds=[victim.id])
        lab.booted(asked)
        assert lab.shell.run(victim.address, "cat /root/kept") == "kept\n"
        lab.shell.run(victim.address, "poweroff")
        lab.wait_state(State.DELETED, victim.id)
        assert lab.cloud.machine(victim.id)["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"


@each_row(
    "step",
    {
        step.value: Row("kill -9 of the cloud's process", f"a build has its {step.value}", _BUILT_ONCE)
        for step in (BuildStep.IMAGE, BuildStep.DISK, BuildStep.DOMAIN, BuildStep.PROCESS)
    },
)
def test_killed_in_a_build(lab: FaultsLab, guests: list[Guest], step: str) -> None:
    lab.host.forget_images()
    with GuestsUntouched(lab, *guests):
        (asked,) = lab.ask()
        lab.wait_step(asked, BuildStep(step))
        lab.kill_daemon()
        lab.up()
        lab.wait_state(State.ACTIVE, asked)
        lab.host.assert_only(asked, *(g.id for g in guests))
        lab.terminate(asked)


@row(
    fault="kill -9 of the cloud's process",
    strikes="a guest is being removed",
    seen="DELETED after the next start, nothing is left",
)
def test_killed_in_a_removal(lab: FaultsLab, guests: list[Guest]) -> None:
    with GuestsUntouched(lab, *guests):
        (asked,) = lab.ask()
        lab.wait_state(State.ACTIVE, asked)
        lab.cloud.ec2.terminate_instances(InstanceIds=[asked])
        lab.wait(lambda: not lab.qemu(asked))
        lab.kill_daemon()
        lab.up()
        lab.wait_state(State.DELETED, asked)


@row(
    fault="SIGSTOP of the cloud's process for longer than a host may be silent, SIGCONT",
    strikes="guests run",
    seen="ACTIVE again (UNKNOWN for a moment at most), never stopped",
)
def test_a_frozen_cloud(lab: FaultsLab, guests: list[Guest]) -> None:
    with GuestsUntouched(lab, *guests):
        lab.freeze_daemon()
        lab.wait_state(State.ACTIVE, *(g.id for g in guests))
        lab.wait(lab.host_up)
        for guest in guests:
            assert "STOPPED" not in lab.cloud.pileus("instance", "explain", guest.id)


@row(
    fault="kill -9 of dnsmasq",
    strikes="guests run",
    seen="started again by the sweep; serves the same leases",
)
def test_a_killed_dnsmasq(lab: FaultsLab, guests: list[Guest]) -> None:
    with GuestsUntouched(lab, *guests):
        (before,) = lab.dnsmasq()
        kill(before)
        lab.wait(lambda: len(lab.dnsmasq()) == 1)
        for guest in guests:
            assert f"lease of {guest.address} obtained" in lab.shell.run(guest.address, _ASK_DHCP)


@row(
    fault="the machine's whole nftables ruleset flushed",
    strikes="guests run",
    seen="made again by the sweep: metadata is answered, and a guest reaches only what it may",
)
def test_a_flushed_firewall(lab: FaultsLab, guests: list[Guest]) -> None:
    guest = guests[0]
    with GuestsUntouched(lab, *guests):
        table = f"list table inet {nft_table(lab.cloud.cloud_id)}".split()
        before = lab.machine.run("nft", "--stateless", *table)
        assert guest.id in lab.shell.run(guest.address, _ASK_METADATA)
        lab.machine.run("nft", "flush", "ruleset")
        assert not lab.shell.succeeds(guest.address, _ASK_METADATA)
        lab.wait(lambda: lab.machine.attempt("nft", "--stateless", *table).stdout == before)
        assert guest.id in lab.shell.run(guest.address, _ASK_METADATA)


# The last one: afterwards the guests are others.
@row(
    fault="power failure of the host",
    strikes="guests run, another is being built",
    seen="after the boot all are started again, with their disks and addresses; bridges, DHCP and firewall are back",
)
def test_a_reboot_of_the_host(lab: FaultsLab, guests: list[Guest]) -> None:
    before = {g.id: lab.boot_id(g) for g in guests}
    lab.shell.run(guests[0].address, "echo kept >/root/kept; sync")
    (asked,) = lab.ask()
    lab.wait_step(asked, BuildStep.DISK)
    lab.reboot()
    (third, *_) = lab.booted([asked])
    assert lab.booted([g.id for g in guests]) == guests
    assert all(lab.boot_id(g) != before[g.id] for g in guests)
    assert lab.shell.run(guests[0].address, "cat /root/kept") == "kept\n"
    assert guests[0].id in lab.shell.run(guests[0].address, _ASK_METADATA)
    lab.host.assert_only(third.id, *before)
    lab.terminate(third.id)
