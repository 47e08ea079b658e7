"""`pileus up`, `status`, `down`, `down --destroy`: a whole cloud of simulated hosts in a process of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.cli.daemon import Daemon
from controller.cli.free_resources import free_port
from controller.cli.health import wait_for


class Cloud:
    """The command, as a shell runs it."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.daemon = Daemon(state)

    def run(self, *arguments: str, status: int = 0) -> str:
        argv = [sys.executable, "-P", "-m", "controller.cli.main", "--state", str(self.state), *arguments]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120, stdin=subprocess.DEVNULL)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout if status == 0 else done.stdout + done.stderr

    def status(self, *, status: int) -> Any:
        return json.loads(self.run("status", "--output", "json", status=status))


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    """A cloud of two simulated hosts that is not up; ended with the test."""
    made = Cloud(tmp_path / "state")
    # Away from the default: the tests of other processes look for free ports as well.
    port = free_port(20000 + os.getpid() % 20000)
    made.run("init", "--simulated", "2", "--port", str(port))
    yield made
    made.daemon.stop()


def test_up_and_down(cloud: Cloud) -> None:
    assert cloud.status(status=1)["up"] is False
    cloud.run("up", "--hosts", "2")
    pid = cloud.daemon.pid()
    found = cloud.status(status=0)
    assert (found["pid"], found["healthy"], found["hosts"], found["problems"]) == (pid, True, {"ready": 2}, {})
    assert "already up" in cloud.run("up")
    assert cloud.daemon.pid() == pid
    assert f"as process {pid}" in cloud.run("up", "--foreground", status=1)
    cloud.run("down")
    assert cloud.daemon.pid() is None
    assert "not up" in cloud.run("down")


@pytest.mark.slow
def test_up_after_a_kill(cloud: Cloud) -> None:
    cloud.run("up")
    pid = cloud.daemon.pid()
    assert pid
    os.kill(pid, signal.SIGKILL)
    assert wait_for(lambda: "still there" if cloud.daemon.pid() else "", 10) == ""
    assert cloud.status(status=1)["up"] is False
    cloud.run("up")
    assert cloud.daemon.pid() not in (None, pid)


@pytest.mark.slow
def test_what_cannot_come_up_says_why_and_leaves_nothing_running(cloud: Cloud) -> None:
    port = json.loads(cloud.run("--output", "json", "status", status=1))["url"].rpartition(":")[2]
    with socket.create_server(("127.0.0.1", int(port))):
        said = cloud.run("up", status=1)
    assert port in said
    assert said.splitlines()[-1].startswith("error: ")
    assert cloud.daemon.pid() is None


@pytest.mark.slow
def test_destroy_removes_what_was_made_and_nothing_else(cloud: Cloud) -> None:
    (cloud.state / "venv").mkdir()
    (cloud.state / "letters").mkdir()
    (cloud.state / "letters" / "mine").write_text("mine")
    cloud.run("up")
    said = cloud.run("down", "--destroy")
    assert "letters/, venv/" in said
    assert sorted(p.name for p in cloud.state.iterdir()) == ["letters", "venv"]
    assert (cloud.state / "letters" / "mine").read_text() == "mine"
    assert "nothing to do" in cloud.run("down", "--destroy")


def test_destroy_without_anything_running_leaves_no_folder(cloud: Cloud) -> None:
    cloud.run("down", "--destroy")
    assert not cloud.state.exists()
