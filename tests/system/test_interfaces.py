"""Bridges, VLANs and addresses in a network namespace: what the kernel has afterwards, and its errors by number."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.system

_PROGRAM = """
import json, sys
from controller.programs import ip

ip.add_bridge("b1")
ip.add_bridge("b1")
ip.disable_ipv6("b1")
ip.configure_bridge("b1", mac="02:00:00:00:00:01", address="10.9.0.1/24", stale=[])
first = vars(ip.read_links()["b1"])
ip.configure_bridge("b1", mac="02:00:00:00:00:01", address="10.8.0.1/22", stale=["10.9.0.1/24"])
second = sorted(ip.read_links()["b1"].addresses)
ip.add_bridge("b2")
ip.set_up("b2")
up = ip.read_links()["b2"].up
errors = {}
for name, change in {
    "no trunk": lambda: ip.add_vlan("v", "absent", 7),
    "vlan": lambda: ip.add_vlan("v7", "b2", 7),
    "no bridge": lambda: ip.set_up("b2", bridge="absent"),
    "a bridge in a bridge": lambda: ip.set_up("b2", bridge="b1"),
}.items():
    try:
        change()
    except ip.InterfaceError as error:
        errors[name] = error.errno
vlan = "v7" in ip.read_links()
for name in ("b1", "b1", "b2", "v7"):
    ip.delete(name)
json.dump([{**first, "addresses": sorted(first["addresses"])}, second, up, errors, vlan, sorted(ip.read_links())],
    sys.stdout)
"""


@pytest.fixture(scope="module")
def seen() -> list[Any]:
    assert os.geteuid() == 0, "root is needed for a network namespace"
    argv = ["unshare", "--net", "--", sys.executable, "-c", _PROGRAM]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout)
    return found


def test_bridge_has_mac_and_address(seen: list[Any]) -> None:
    assert seen[0] == {
        "name": "b1", "kind": "bridge", "up": True, "mac": "02:00:00:00:00:01", "master": "",
        "addresses": ["10.9.0.1/24"], "plain": True,
    }  # fmt: skip


def test_stale_address_is_replaced(seen: list[Any]) -> None:
    assert seen[1] == ["10.8.0.1/22"]


def test_interface_is_set_up(seen: list[Any]) -> None:
    assert seen[2]


def test_errors_are_numbers(seen: list[Any]) -> None:
    errors, vlan = seen[3], seen[4]
    assert errors["no trunk"] == errors["no bridge"] == errno.ENODEV
    assert errors["a bridge in a bridge"] == errno.ELOOP
    assert vlan or errors["vlan"] == errno.EOPNOTSUPP


def test_deleted_interfaces_are_gone(seen: list[Any]) -> None:
    assert not {"b1", "b2", "v7"} & set(seen[5])
