"""Services in a process of their own: started in order, stopped in reverse, whatever goes wrong."""

import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from controller.cli.services import make_services
from controller.conf import Settings
from controller.domain.errors import ConfigurationError
from controller.installed_services import service_names
from controller.operations.cloud import Cloud
from tests.labs.cloud import make_settings
from tests.labs.command import Command

PROGRAM = """
import sys, time
from pathlib import Path
from controller.cli.logs import set_level, set_up_logging
from controller.cli.serve import run_services
from controller.conf import Settings
from controller.domain.errors import ConfigurationError
from controller.health import Health

class Service:
    def __init__(self, name):
        self.name = name
    def start(self):
        if self.name == "broken":
            secret = "hunter" + str(1 + 1)
            raise RuntimeError("no such thing")
        if self.name == "misconfigured":
            raise ConfigurationError(reason="the port is taken")
        print("start", self.name, flush=True)
    def stop(self):
        print("stop", self.name, flush=True)
        if self.name == "slow":
            time.sleep(60)
        if self.name == "rude":
            raise RuntimeError("not now")

def reload():
    if "unreadable" in sys.argv:
        raise ConfigurationError(reason="that is no file")
    set_level("DEBUG")
    print("reloaded", flush=True)

settings = Settings()
set_up_logging(settings)
health = Health()
health.add("compute", lambda: "" if Path(sys.argv[1]).exists() or "ill" not in sys.argv else "no hypervisor")
health.add("bus", lambda: "away" if "lonely" in sys.argv else "", vital=False)
sys.exit(run_services([Service(n) for n in sys.argv[2:]], settings, health=health, reload=reload))
"""


class Process:
    """Services in another process, up to the point where they run."""

    def __init__(self, tmp_path: Path, *names: str) -> None:
        self.well = tmp_path / "well"
        self.ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.ready.bind(str(tmp_path / "notify"))
        self.ready.settimeout(30)
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(self.well), *names],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"NOTIFY_SOCKET": str(tmp_path / "notify"), "PATH": "/usr/bin:/bin"},
        )

    def told(self) -> str:
        return self.ready.recv(1000).decode()

    def end(self) -> tuple[int, list[str], str]:
        out, err = self.process.communicate(timeout=30)
        return self.process.returncode, out.splitlines(), err


def test_ready_is_who_can_do_its_work(tmp_path: Path) -> None:
    running = Process(tmp_path, "ill")
    assert running.told() == "STATUS=starting: compute: no hypervisor"
    running.well.touch()
    assert running.told() == "READY=1\nSTATUS=well"
    running.well.unlink()
    assert running.told() == "STATUS=not well: compute: no hypervisor"
    running.process.terminate()
    status, _, log = running.end()
    assert status == 0
    assert "no hypervisor" in log


def test_what_is_not_vital_is_told_and_nothing_waits_for_it(tmp_path: Path) -> None:
    running = Process(tmp_path, "lonely")
    assert running.told() == "READY=1\nSTATUS=not well: bus: away"
    running.process.terminate()
    running.end()


@pytest.mark.parametrize(("name", "seen"), [("a", "reloaded"), ("unreadable", "that is no file")])
def test_sighup_reads_again_and_ends_nothing(tmp_path: Path, name: str, seen: str) -> None:
    running = Process(tmp_path, name)
    running.told()
    running.process.send_signal(signal.SIGHUP)
    assert running.process.stdout and running.process.stderr
    said = ""
    while seen not in said:
        said = (running.process.stdout if name == "a" else running.process.stderr).readline()
        assert said, "it has ended"
    running.process.terminate()
    assert running.end()[0] == 0


@pytest.mark.parametrize("order", [signal.SIGTERM, signal.SIGINT])
def test_stopped_in_reverse(tmp_path: Path, order: signal.Signals) -> None:
    running = Process(tmp_path, "a", "b")
    assert running.told() == "READY=1\nSTATUS=well"
    running.process.send_signal(order)
    assert running.told() == "STOPPING=1"
    status, lines, _ = running.end()
    assert (status, lines) == (0, ["start a", "start b", "stop b", "stop a"])


def test_one_that_cannot_start_stops_the_others(tmp_path: Path) -> None:
    running = Process(tmp_path, "a", "broken", "b")
    assert running.told() == "STOPPING=1"
    status, lines, log = running.end()
    assert (status, lines) == (1, ["start a", "stop a"])
    assert "no such thing" in log


def test_a_traceback_shows_no_local_variables(tmp_path: Path) -> None:
    _, _, log = Process(tmp_path, "broken").end()
    assert "Traceback" in log
    assert "hunter2" not in log


def test_what_the_operator_can_mend_is_told_without_a_traceback(tmp_path: Path) -> None:
    status, _, log = Process(tmp_path, "misconfigured").end()
    assert status == 1
    assert "the port is taken" in log
    assert "Traceback" not in log


def test_one_that_cannot_stop_does_not_keep_the_others(tmp_path: Path) -> None:
    running = Process(tmp_path, "a", "rude")
    running.told()
    running.process.terminate()
    status, lines, _ = running.end()
    assert (status, lines[-2:]) == (1, ["stop rude", "stop a"])


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    running = Process(tmp_path, "slow")
    running.told()
    running.process.terminate()
    assert running.told() == "STOPPING=1"
    begin = time.monotonic()
    running.process.terminate()
    status, _, _ = running.end()
    assert status == 128 + signal.SIGTERM
    assert time.monotonic() - begin < 10


def test_every_service_is_found() -> None:
    assert service_names() == ["compute", "network", "scheduler", "controller", "metadata", "api"]


@pytest.mark.parametrize("name", ["api", "scheduler", "compute"])
def test_one_alone_needs_a_bus_that_is_not_its_own_memory(command: Command, name: str) -> None:
    result = command.result("serve", name)
    assert "the memory of one process" in str(result.exception)


@pytest.mark.parametrize("arguments", [("nothing",), ("scheduler", "--simulated", "2"), ("all", "--simulated", "0")])
def test_usage(command: Command, arguments: tuple[str, ...]) -> None:
    assert command.result("serve", *arguments).exit_code == 2


def test_an_agent_gets_no_database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Cloud, "connect", None)
    with ExitStack() as stack:
        (service,) = make_services(["compute"], make_settings(tmp_path), stack)
    assert service.name == "compute"


@pytest.mark.parametrize("name", ["api", "scheduler", "controller", "network", "metadata"])
def test_none_starts_without_the_key_of_its_cloud(tmp_path: Path, name: str) -> None:
    with ExitStack() as stack, pytest.raises(ConfigurationError, match=r"secret\.key cannot be read"):
        make_services([name], make_settings(tmp_path), stack)


@pytest.mark.parametrize("name", ["api", "compute"])
def test_none_starts_without_the_id_of_its_cloud(name: str) -> None:
    with ExitStack() as stack, pytest.raises(ConfigurationError, match="cloud_id is not set"):
        make_services([name], Settings(), stack)
