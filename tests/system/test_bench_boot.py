"""`bin/bench boot` with a handful of guests of the demo image: the tiny one's kernel takes too long to build here."""

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.labs.servers.guarded import wait_until
from tests.labs.system.running_cloud import CHECKOUT, clean_environment, processes_with

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def image() -> str:
    done = subprocess.run([CHECKOUT / "bin/demo-image", "--cache"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not pytest's own, which is root's only: the database server runs as another user."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o711)
        yield Path(made)


def start(image: str, count: int, folder: Path) -> "subprocess.Popen[str]":
    argv = [
        sys.executable,
        "-P",
        "-m",
        "tests.bench.harness",
        "boot",
        "--count",
        str(count),
        "--image",
        image,
        "--json",
    ]
    argv += ["--memory-mib", "96"]
    environment = {**clean_environment(), "PYTHONPATH": str(CHECKOUT), "TMPDIR": str(folder)}
    with (folder / "said.log").open("w") as log:
        return subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        )


def left(folder: Path) -> list[object]:
    """What there still is of a bench whose temporary files were here."""
    return [*processes_with(f"{folder}/"), *folder.glob("pileus-bench-*")]


def test_every_guest_answers(image: str, folder: Path) -> None:
    with start(image, 2, folder) as bench:
        said, _ = bench.communicate(timeout=800)
    assert bench.returncode == 0, (folder / "said.log").read_text()[-4000:]
    result = json.loads(said.splitlines()[-1])
    assert {result[name] for name in ("asked", "active", "leases", "ping", "ssh", "floor_ping")} == {2}
    assert result["errors"] == result["audit_breaches"] == 0
    assert result["disk_mib_per_guest"] < 20
    assert result["ratio"] == pytest.approx(result["wall_s"] / result["floor_s"], abs=0.01)
    assert left(folder) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_of_one_that_was_ended(image: str, folder: Path, number: signal.Signals) -> None:
    bench = start(image, 2, folder)

    def boots() -> bool:
        assert bench.poll() is None, (folder / "said.log").read_text()[-4000:]
        return any("qemu-system" in name for name in names(processes_with(f"{folder}/")))

    try:
        wait_until(boots, deadline_s=300, what=lambda: "no guest")
    finally:
        bench.send_signal(number)
        bench.communicate(timeout=60)
    wait_until(lambda: not processes_with(f"{folder}/"), deadline_s=30, what=lambda: str(left(folder)))
    # After a SIGKILL the files stay.
    assert number is signal.SIGKILL or left(folder) == []


def names(pids: list[int]) -> list[str]:
    return [path.read_text() for pid in pids if (path := Path(f"/proc/{pid}/comm")).exists()]
