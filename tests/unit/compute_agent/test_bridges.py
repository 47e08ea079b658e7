"""Bridges of a host on a kernel without 802.1Q."""

import errno
import os
from pathlib import Path

import pytest

from compute_agent import bridges
from compute_agent.bridges import Bridges
from controller.programs import ip


def test_a_kernel_without_vlans_makes_networks_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def add_bridge(name: str) -> None:
        (tmp_path / name / "bridge").mkdir(parents=True)
        (tmp_path / name / "flags").write_text("0x1003\n")

    def add_vlan(name: str, trunk: str, vlan: int) -> None:
        asked.append(vlan)
        number = errno.EOPNOTSUPP
        raise ip.InterfaceError(what=f"Changing {name} on {trunk}", reason=os.strerror(number), errno=number)

    monkeypatch.setattr(ip, "add_bridge", add_bridge)
    monkeypatch.setattr(ip, "add_vlan", add_vlan)
    monkeypatch.setattr(ip, "set_up", lambda *_, **__: None)
    monkeypatch.setattr(bridges, "_INTERFACES", tmp_path)
    (tmp_path / "eth1").mkdir()
    made = Bridges("abcdef01", "eth1")
    assert [made.ensure(100), made.ensure(100), made.ensure(101)] == ["plabcdb100", "plabcdb100", "plabcdb101"]
    assert asked == [100]
