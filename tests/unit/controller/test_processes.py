"""Daemons are found by what they were started with, and no other process is touched."""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from controller.domain.errors import HostError
from controller.processes import end, hang_up, pid_in, runs, started_with
from tests.labs.servers.guarded import wait_until


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(["sleep", "infinity", "1"]) as process:
        # Its arguments can be read a moment after it was started.
        wait_until(lambda: runs(process.pid, "infinity"), deadline_s=5, what=lambda: "no sleep")
        yield process
        process.kill()


def test_found_by_program_and_argument(sleeper: "subprocess.Popen[bytes]") -> None:
    assert runs(sleeper.pid, "infinity")
    assert not runs(sleeper.pid, "infinit")
    assert started_with("/bin/sleep", "infin")[sleeper.pid] == "infinity"
    assert sleeper.pid not in started_with("/bin/cat", "infin")


def test_another_process_of_that_number_is_left_alone(sleeper: "subprocess.Popen[bytes]") -> None:
    assert not hang_up(sleeper.pid, "--conf-file=x")
    end(sleeper.pid, "--conf-file=x")
    assert sleeper.poll() is None


def test_ended(sleeper: "subprocess.Popen[bytes]") -> None:
    end(sleeper.pid, "infinity")
    assert sleeper.wait(5) == -15
    end(sleeper.pid, "infinity")


@pytest.mark.parametrize("number", [errno.EPERM, errno.EMFILE])
def test_process_without_a_handle_is_not_taken_for_gone(
    sleeper: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(_pid: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pidfd_open", refuse)
    with pytest.raises(HostError, match=os.strerror(number)):
        end(sleeper.pid, "infinity")


def test_process_that_cannot_be_looked_at_is_not_taken_for_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_self: object) -> list[str]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(psutil.Process, "cmdline", refuse)
    with pytest.raises(HostError):
        runs(os.getpid(), "x")
    with pytest.raises(HostError):
        started_with("python3", "x")


@pytest.mark.parametrize("pid", [-1, 0, 2**22 + 1, 2**40])
def test_number_that_no_process_has(pid: int) -> None:
    assert not runs(pid, "x")
    end(pid, "x")


@pytest.mark.parametrize("text", ["", "x", "-\n"])
def test_bad_pid_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "pid").write_text(text)
    assert pid_in(tmp_path / "pid") is None
    assert pid_in(tmp_path / "none") is None
