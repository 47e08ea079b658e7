"""The private libvirtd: its settings, its process, and a machine without libvirt."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from compute_agent.libvirt_driver import libvirtd
from controller.conf.settings import General, Settings
from controller.domain.errors import ConfigurationError


def test_the_private_libvirtd_listens_on_its_socket_only(tmp_path: Path) -> None:
    settings = replace(Settings(), general=General(state_dir=str(tmp_path), cloud_id="abcdef01"))
    text = libvirtd._libvirtd_conf(settings)
    assert "listen_tcp = 0" in text
    assert "listen_tls = 0" in text
    assert 'unix_sock_rw_perms = "0700"' in text
    assert text == libvirtd._libvirtd_conf(settings)
    long = replace(settings, general=replace(settings.general, state_dir="/var/lib/" + "x" * 100))
    assert libvirtd.socket_uri(long) == "qemu+unix:///system?socket=/run/pileus-abcdef01/libvirt/libvirt-sock"
    below_run = replace(settings, general=replace(settings.general, state_dir="/run/pileus"))
    with pytest.raises(ConfigurationError, match="below /run"):
        libvirtd._prepare(below_run)


def test_reused_pid_is_not_ours(tmp_path: Path) -> None:
    settings = replace(Settings(), general=General(state_dir=str(tmp_path), cloud_id="abcdef01"))
    (tmp_path / "libvirt").mkdir()
    (tmp_path / "libvirt" / "libvirtd.pid").write_text(f"{os.getpid()}\n")
    assert libvirtd.pid(settings) is None
    libvirtd.stop(settings)


def test_no_service_needs_libvirt_to_be_imported() -> None:
    code = "import sys; sys.modules['libvirt'] = None; import compute_agent.service"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
