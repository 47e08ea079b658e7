"""The process in the background: found by its lock, never mistaken for another."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.cli.daemon import Daemon
from controller.domain.errors import Conflict

HOLD = """
import sys
from pathlib import Path
from controller.cli.daemon import Daemon
with Daemon(Path(sys.argv[1])).held():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Another process that is the daemon."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_no_daemon(tmp_path: Path) -> None:
    assert Daemon(tmp_path).pid() is None
    assert Daemon(tmp_path).stop() is None


def test_found_and_ended(tmp_path: Path, holder: "subprocess.Popen[bytes]") -> None:
    daemon = Daemon(tmp_path)
    assert daemon.pid() == holder.pid
    assert daemon.stop() == holder.pid
    assert holder.wait(10) != 0
    assert daemon.pid() is None


def test_only_one(tmp_path: Path, holder: "subprocess.Popen[bytes]") -> None:
    with pytest.raises(Conflict, match=str(holder.pid)), Daemon(tmp_path).held():
        pass


def test_a_reused_pid_is_left_alone(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    daemon.pid_file.parent.mkdir()
    daemon.pid_file.write_text(f"{os.getpid()}\n")
    assert daemon.pid() is None
    assert daemon.stop() is None


def test_a_look_does_not_keep_it_from_starting(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path)
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            daemon.pid()

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(50):
            with daemon.held():
                pass
    finally:
        stop.set()
        looking.join()


def test_rubbish_in_the_file(tmp_path: Path, holder: "subprocess.Popen[bytes]") -> None:
    daemon = Daemon(tmp_path)
    daemon.pid_file.write_text("rubbish")
    assert daemon.pid() is None
    assert holder.poll() is None
