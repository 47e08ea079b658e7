"""The power goes: what was answered is there afterwards, whatever else the disk has forgotten.

Each promise is shown together with a write that makes none, so that the disk of the test is seen to forget.
"""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from compute_agent.journal.journal import Journal
from controller.cli.configuration_file import new_text, write_private
from controller.cli.health import api_problem
from controller.conf import load_settings
from controller.operations.cloud import Cloud, Transaction
from controller.operations.hosts import hosts
from controller.operations.instances import views
from tests.faults import row
from tests.labs.agent import instance
from tests.labs.servers.forgetful_disk import ForgetfulDisk
from tests.labs.servers.guarded import Guarded
from tests.labs.servers.server import free_ports
from tests.labs.system.running_cloud import CHECKOUT, RunningCloud, clean_environment

pytestmark = [pytest.mark.functional]

MAIN = "from controller.cli.main import main; main()"
# As it was before: a commit is on the disk with the next checkpoint.
LOOSE = """
from sqlalchemy import Engine, event
@event.listens_for(Engine, "begin")
def begin(connection):
    connection.connection.dbapi_connection.execute("PRAGMA synchronous = NORMAL")
"""
T = TypeVar("T")
COUNT = 5
HOSTS = 3


class Machine:
    """A whole cloud in one process, on a disk that forgets."""

    def __init__(self, state: Path, disk: ForgetfulDisk) -> None:
        self.state = state
        self.disk = disk
        self.cloud = RunningCloud(state, Path(sys.executable).parent)
        options: dict[tuple[str, str], object] = {
            ("DEFAULT", "state_dir"): state,
            ("DEFAULT", "cloud_id"): "f0493701",
            ("api", "listen_port"): free_ports(1)[0],
            ("network", "driver"): "none",
            ("compute", "driver"): "simulated",
            ("compute", "simulated_hosts"): HOSTS,
            ("controller", "ring_after_s"): 1,
            ("controller", "ring_max_s"): 5,
        }
        write_private(state / "pileus.conf", new_text(options))
        self.settings = load_settings(state / "pileus.conf")

    def pileus(self, *arguments: str) -> None:
        """Run the command on the forgetful disk."""
        subprocess.run(self._argv(*arguments), env=self._environment(), cwd=CHECKOUT, check=True, timeout=120)

    def serve(self, program: str = "", *, noted: bool = True) -> Guarded:
        """The cloud as a process, all of it up; ``program`` is run before it begins."""
        log = self.state.parent / "serve.log"
        process = Guarded(self._argv("serve", "all", program=program), log=log, env=self._environment(noted))
        try:
            process.wait_until(lambda: api_problem(self.settings) == "", deadline_s=120, what="the API")
            process.wait_until(lambda: self._hosts() == HOSTS, deadline_s=60, what="the hosts")
        except BaseException:
            process.kill()
            raise
        return process

    def launch(self, count: int) -> list[str]:
        """So many requests for one instance; the ids that were answered."""
        image = self.cloud.ec2.describe_images()["Images"][0]["ImageId"]
        made = [
            self.cloud.ec2.run_instances(ImageId=image, InstanceType="p1.tiny", MinCount=1, MaxCount=1)
            for _ in range(count)
        ]
        return [m["Instances"][0]["InstanceId"] for m in made]

    def rows(self) -> dict[str, str]:
        """The instances of the database and their states."""
        return self._read(lambda tx: {v.id: str(v.state) for v in views.list_instances(tx, None)})

    def _hosts(self) -> int:
        return self._read(lambda tx: len(hosts.list_hosts(tx)))

    def _read(self, operation: Callable[[Transaction], T]) -> T:
        cloud = Cloud.connect(self.settings)
        try:
            return cloud.read(operation)
        finally:
            cloud.database.close()

    def _argv(self, *arguments: str, program: str = "") -> list[str]:
        return [sys.executable, "-P", "-c", program + MAIN, "--state", str(self.state), *arguments]

    def _environment(self, noted: bool = True) -> dict[str, str]:
        return {**clean_environment(), "PYTHONPATH": str(CHECKOUT), **(self.disk.environment if noted else {})}


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    state = tmp_path / "state"
    state.mkdir()
    with ForgetfulDisk(state, elsewhere="agent/simulated.db*") as disk:  # the hosts are other machines
        made = Machine(state, disk)
        disk.sync()
        made.pileus("init")
        image = tmp_path / "image.raw"
        image.write_bytes(bytes(1024 * 1024))
        made.pileus("image", "import", str(image), "--name", "demo")
        yield made


def launched_then_cut(machine: Machine, program: str = "") -> list[str]:
    """Requests are answered, then the power goes; the instances that were answered."""
    process = machine.serve(program)
    try:
        launched = machine.launch(COUNT)
    finally:
        process.kill()
    machine.disk.cut()
    return launched


@row(
    fault="the power goes: whatever was not synced is forgotten",
    strikes="a whole cloud in one process, on SQLite, as it has answered the last of 5 requests",
    seen="all 5 are there, and come true when it is started again; no guest of the hosts, which went on, is lost",
)
def test_what_was_accepted_comes_true(machine: Machine) -> None:
    launched = launched_then_cut(machine)
    assert set(machine.rows()) == set(launched)
    process = machine.serve(noted=False)
    try:
        machine.cloud.wait_state("running", *launched, deadline_s=120)
    finally:
        process.stop()


@row(
    fault="the power goes: whatever was not synced is forgotten",
    strikes="the same, with SQLite's commits as they were before (`synchronous = NORMAL`)",
    seen="requests that were answered are not there: so the disk of these tests does forget",
)
def test_with_less_than_full_it_is_forgotten(machine: Machine) -> None:
    machine.disk.sync()
    launched = launched_then_cut(machine, LOOSE)
    assert not set(launched) <= set(machine.rows())


@row(
    fault="the power goes: whatever was not synced is forgotten",
    strikes="a new cloud, after `pileus init` and `pileus image import`",
    seen="configuration, keys, tables and the image's file are there",
)
def test_init_and_import_are_there(machine: Machine) -> None:
    machine.disk.cut()
    process = machine.serve(noted=False)  # the keys decrypt, the tables are there
    try:
        (image,) = machine.cloud.ec2.describe_images()["Images"]
    finally:
        process.stop()
    assert image["Name"] == "demo"
    assert [f.stat().st_size for f in machine.settings.image_store.glob("*.raw")] == [1024 * 1024]


AGENT = """
import sys, threading
from pathlib import Path
from compute_agent.journal.journal import Journal
from controller.domain.messages import GuestSpec
from controller.domain.states import Event
from tests.labs.agent import guest, instance
journal = Journal(Path(sys.argv[1]))
journal.record("h1", [guest(1, generation=3)])
journal.booted("h1", "boot-1")
journal.finish("h1", instance(1), 3, Event.RUNNING)
print("recorded", flush=True)
threading.Event().wait()
"""


@row(
    fault="the power goes: whatever was not synced is forgotten",
    strikes="a host, as its agent has written a command down, and the result",
    seen="the command is there, and is carried out again; the result is found again by that",
)
def test_the_journal_has_what_was_acknowledged(tmp_path: Path) -> None:
    folder = tmp_path / "agent"
    folder.mkdir()
    with ForgetfulDisk(folder) as disk:
        environment = {**clean_environment(), "PYTHONPATH": str(CHECKOUT), **disk.environment}
        argv = [sys.executable, "-P", "-c", AGENT, str(folder / "journal.db")]
        with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout and process.stdout.readline() == "recorded\n"
            finally:
                process.send_signal(signal.SIGKILL)
        before = Journal(folder / "journal.db")
        assert before.pending("h1") == []
        before.close()
        disk.cut()
        journal = Journal(folder / "journal.db")
        assert [(g.instance_id, g.generation) for g in journal.pending("h1")] == [(instance(1), 3)]
        assert journal.booted("h1", "boot-1") == 0  # that boot is known
        journal.close()
