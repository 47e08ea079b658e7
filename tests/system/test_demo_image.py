"""The demo image, booted: what a guest of it does with what the cloud gives it."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.labs.servers.guarded import find_program
from tests.labs.system.guest_lab import Guest, GuestLab

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

SCRIPT = Path(__file__).parents[2] / "bin/demo-image"
USER_DATA = """#!/bin/bash
echo "user data ran on $(hostname)"
echo run >>/root/runs
"""


@pytest.fixture(scope="module")
def image() -> Path:
    done = subprocess.run([SCRIPT, "--cache"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.splitlines()[-1])


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[GuestLab]:
    assert os.geteuid() == 0, "root is needed for a network with guests"
    with GuestLab(tmp_path) as lab:
        yield lab


@pytest.fixture
def disk(image: Path, tmp_path: Path) -> Path:
    path = tmp_path / "disk.qcow2"
    program = find_program("qemu-img", package="qemu-utils")
    backing = ["-b", str(image), "-F", "qcow2"]
    subprocess.run([program, "create", "-q", "-f", "qcow2", *backing, str(path), "2G"], check=True)
    return path


def test_is_small(image: Path) -> None:
    assert image.stat().st_size < 40_000_000


def test_is_taken_from_the_cache(image: Path) -> None:
    done = subprocess.run([SCRIPT, "--cache"], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == str(image)
    assert "building" not in done.stderr


def test_life_of_a_guest(lab: GuestLab, disk: Path) -> None:
    lab.write_metadata("i-0123456789abcdef0", hostname="ip-10-77-0-10.internal", user_data=USER_DATA)
    with lab.serve_metadata():
        with Guest(lab, disk) as guest:
            address = guest.wait_up()
            assert re.fullmatch(r"10\.77\.0\.\d+", address)
            assert lab.ssh(address, "hostname").strip() == "ip-10-77-0-10"
            lab.run("ping", "-c", "1", "-W", "5", address)
            assert guest.wait_for("USER-DATA ended with status ") == "0"
            assert "user data ran on ip-10-77-0-10" in guest.console
            blocks, _used, _free = lab.ssh(address, "df -k / | tail -n 1").split()[1:4]
            assert int(blocks) > 1_900_000  # it follows the disk's size
            refused = lab.attempt(*lab.ssh_argv(address, "id", "-o", "PubkeyAuthentication=no"))
            assert "Permission denied (publickey)" in refused.stderr  # so no password either
            guest.push_power_button()
            guest.qemu.wait(timeout_s=60)
        requests = (lab.metadata / "requests.log").read_text()
        assert "PUT /latest/api/token 200" in requests
        assert " 401" not in requests

        # Stopped and started: the same machine, told by its host key; a hard stop harms nothing.
        for _ in range(2):
            with Guest(lab, disk) as guest:
                assert lab.ssh(guest.wait_up(), "cat /root/runs") == "run\n"
        with Guest(lab, disk) as guest:
            lab.ssh(guest.wait_up(), "reboot")
            assert lab.ssh(guest.wait_up(boots=2), "cat /root/runs") == "run\n"


def test_late_metadata_of_version_1(lab: GuestLab, disk: Path) -> None:
    """The guest is faster than the service, which knows no tokens; its user data is no script."""
    lab.metadata.mkdir()
    (lab.metadata / "imdsv1").touch()
    with Guest(lab, disk, memory_mib=80, rng=False) as guest:
        guest.qemu.wait_until(
            lambda: "DHCPACK" in lab.dnsmasq.log_tail(), deadline_s=60, what="no address was asked for"
        )
        lab.write_metadata("i-0123456789abcdef1", hostname="late", user_data="#cloud-config\n")
        with lab.serve_metadata():
            address = guest.wait_up()
            guest.wait_for("USER-DATA ignored")
            assert lab.ssh(address, "hostname").strip() == "late"
