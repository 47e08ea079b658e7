"""A cloud with real guests on a machine that a test may break, and what is looked at afterwards."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from controller.cli.configuration_file import changed_text, write_private
from controller.conf import load_settings
from controller.conf.settings import Settings
from controller.db.database import Database
from controller.domain.states import State
from controller.operations.cloud import Cloud, Transaction
from controller.operations.hosts import hosts
from controller.operations.instances import views
from tests.labs.bus import FakeBus
from tests.labs.servers.guarded import find_program, wait_until
from tests.labs.servers.server import free_ports
from tests.labs.system.first_cloud import command_line
from tests.labs.system.host_guests import BuildStep, HostGuests
from tests.labs.system.machine import Machine
from tests.labs.system.running_cloud import CHECKOUT, RunningCloud, Shell, leaders, processes_with, run

T = TypeVar("T")

BOOT_DEADLINE_S = 240
HOST_DOWN_AFTER_S = 6
_TYPE = "p1.tiny"
# What is lost is missed soon, so that a test need not wait for it.
QUICK: Mapping[tuple[str, str], object] = {
    ("compute", "heartbeat_s"): 1,
    ("compute", "tcg_cache_mib"): 16,
    ("controller", "host_down_after_s"): HOST_DOWN_AFTER_S,
    ("controller", "ring_after_s"): 1,
    ("controller", "ring_max_s"): 5,
    ("bus", "retry_after_s"): 0.5,
}


@dataclass(frozen=True)
class Guest:
    """An instance that runs, and where it answers."""

    id: str
    address: str


class FaultsLab:
    """A cloud in one process on a machine of its own; a context manager.

    The test's thread is in the machine's network meanwhile: it reaches API and guests as the machine does.
    ``volume_mib``: the guests' disks lie on a file system of that size.
    """

    def __init__(self, folder: Path, *, programs: Path, volume_mib: int = 0) -> None:
        self.state = folder / "state"
        self.machine = Machine(folder)
        self.programs = programs
        self._volume = folder / "volume" if volume_mib else None
        self._volume_mib = volume_mib
        self._key = folder / "key.pem"
        self.shell = Shell(self._key)
        self._network = contextlib.ExitStack()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            # Before the thread is in the machine's network: building it may want Debian's packages.
            image = run([str(CHECKOUT / "bin/demo-image"), "--cache"], timeout_s=300).splitlines()[-1]
            stack.enter_context(self.machine)
            stack.callback(self._network.close)
            if self._volume is not None:
                self._make_volume(self._volume)
            self._arrive()
            self.cloud.pileus("init", "--port", str(free_ports(1)[0]))
            self.configure({**QUICK, **self.engines(stack)})
            self.up()
            self.image = str(self.cloud.pileus_json("image", "import", image, "--name", "demo")["id"])
            self._key.touch(0o600)
            self._key.write_text(self.cloud.ec2.create_key_pair(KeyName="mine")["KeyMaterial"])
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def engines(self, stack: contextlib.ExitStack) -> Mapping[tuple[str, str], object]:
        """Start the servers that the cloud needs; the options that name them."""
        return {}

    def configure(self, values: Mapping[tuple[str, str], object]) -> None:
        """Change the configuration; a process takes it at its next start."""
        file = self.state / "pileus.conf"
        write_private(file, changed_text(file.read_text(), values))

    # --- the machine and the cloud's processes

    @property
    def host(self) -> HostGuests:
        """What the machine carries."""
        return HostGuests(self.machine, self.state, self.cloud.cloud_id)

    def up(self) -> None:
        """Start what does not run; returns when the cloud and its host are well."""
        self.cloud.pileus("up", "--hosts", "1", timeout_s=200)

    def daemon(self) -> int:
        """The process of the cloud."""
        (pid,) = leaders(p for p in processes_with(str(self.state)) if command_line(p).endswith("\0all\0"))
        return pid

    def kill_daemon(self) -> None:
        """kill -9; returns when it is gone."""
        kill(self.daemon())

    def freeze_daemon(self) -> None:
        """Stop it for longer than a host may be silent, then let it go on."""
        with frozen(self.daemon()):
            time.sleep(HOST_DOWN_AFTER_S + 2)

    def libvirtd(self) -> list[int]:
        """The private libvirtd itself, not its supervisor."""
        config = f"{self.state}/libvirt/etc/libvirtd.conf"
        return leaders(p for p in processes_with(config) if command_line(p).split("\0")[0].endswith("libvirtd"))

    def dnsmasq(self) -> list[int]:
        """The DHCP server of the only network."""
        return leaders(processes_with(f"--conf-file={self.state}/network/{self.network_id()}/dnsmasq.conf"))

    def network_id(self) -> str:
        return str(self.cloud.pileus_json("network", "list")[0]["id"])

    def reboot(self) -> None:
        """The machine loses its power and boots; the cloud's start is part of that."""
        self._network.close()
        self.machine.power_off()
        self.machine.power_on()
        self._arrive()
        self.up()

    def _arrive(self) -> None:
        self._network.enter_context(self.machine.network())
        if self._volume is not None:
            self.machine.run("mount", "-o", "loop", str(self._volume), str(self.state / "instances"))
        # Another one after a boot: what is connected to the old network hangs.
        self.cloud = RunningCloud(self.state, self.programs, prefix=self.machine.prefix)

    def _make_volume(self, volume: Path) -> None:
        (self.state / "instances").mkdir(parents=True)
        with volume.open("wb") as file:
            file.truncate(self._volume_mib * 1024**2)
        run([find_program("mke2fs", package="e2fsprogs"), "-q", "-F", "-t", "ext4", "-m", "0", str(volume)])

    # --- instances

    def ask(self, count: int = 1, *, group: str = "", **more: object) -> list[str]:
        """Ask for instances, in a placement group if one is named, with more parameters of EC2's; their ids."""
        made = self.cloud.ec2.run_instances(
            ImageId=self.image,
            InstanceType=_TYPE,
            KeyName="mine",
            MinCount=count,
            MaxCount=count,
            **({"Placement": {"GroupName": group}} if group else {}),
            **more,
        )
        return [str(i["InstanceId"]) for i in made["Instances"]]

    def boot(self, count: int = 1) -> list[Guest]:
        """Guests that can be logged in to."""
        return self.booted(self.ask(count))

    def booted(self, ids: Sequence[str]) -> list[Guest]:
        """Wait until these can be logged in to."""
        self.wait_state(State.ACTIVE, *ids)
        guests = [Guest(i, str(self.cloud.machine(i)["PrivateIpAddress"])) for i in ids]
        for guest in guests:
            self.shell.wait(guest.address, deadline_s=BOOT_DEADLINE_S, what=lambda: self.cloud.scenarios(ids))
        return guests

    def terminate(self, *ids: str) -> None:
        """Terminate, and wait until nothing of them is left."""
        self.cloud.ec2.terminate_instances(InstanceIds=list(ids))
        self.wait_state(State.DELETED, *ids)

    def wait_step(self, instance_id: str, step: BuildStep) -> None:
        """Wait until the build has come so far; returns within milliseconds."""
        self.host.wait_step(instance_id, step, lambda: self.cloud.scenarios([instance_id]))

    def states(self) -> dict[str, State]:
        """The state of every instance there is, deleted ones too."""
        return self.read(lambda tx: {v.id: State(v.state) for v in views.list_instances(tx)})

    def wait_state(self, state: State, *ids: str, deadline_s: float = 120) -> None:
        self.wait(
            lambda: {s for i, s in self.states().items() if i in ids} == {state},
            deadline_s=deadline_s,
            what=lambda: f"not all are {state}: {self.states()}\n{self.cloud.scenarios(ids)}",
        )

    def wait(self, done: Callable[[], bool], *, deadline_s: float = 60, what: Callable[[], str] | None = None) -> None:
        wait_until(done, deadline_s=deadline_s, what=what or self.cloud.log_tail)

    def host_up(self) -> bool:
        """Whether the host is there and heard of."""
        return self.read(lambda tx: [h.up for h in hosts.list_hosts(tx)]) == [True]

    def settings(self) -> Settings:
        return load_settings(self.state / "pileus.conf")

    def read(self, operation: Callable[[Transaction], T]) -> T:
        """Look at the rows, which is quicker than a command."""
        with contextlib.closing(Database(self.settings())) as database:
            return Cloud(self.settings(), database, FakeBus()).read(operation)

    def write(self, operation: Callable[[Transaction], object]) -> None:
        """Change the rows behind the cloud's back; nothing is rung."""
        with contextlib.closing(Database(self.settings())) as database:
            Cloud(self.settings(), database, FakeBus()).write(operation)

    def qemu(self, instance_id: str) -> list[int]:
        """The processes of a guest."""
        return self.host.qemu(instance_id)

    def boot_id(self, guest: Guest) -> str:
        return self.shell.run(guest.address, "cat /proc/sys/kernel/random/boot_id").strip()

    def assert_clean(self) -> None:
        """Every promise holds."""
        audit = self.cloud.pileus("audit")
        assert audit.strip() == "clean", audit


def kill(pid: int) -> None:
    """kill -9; returns when the process is gone, as it may be already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not command_line(pid), deadline_s=10, what=lambda: f"{pid} is still there")


@contextlib.contextmanager
def frozen(pid: int) -> Iterator[None]:
    """SIGSTOP, and SIGCONT when the block ends."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


class GuestsUntouched:
    """While this block lasts no guest may be restarted: the same process, the same boot."""

    def __init__(self, lab: FaultsLab, *guests: Guest) -> None:
        self._lab = lab
        self._guests = guests

    def __enter__(self) -> Self:
        self._before = self._look()
        assert all(len(pids) == 1 for pids, _ in self._before.values()), self._before
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            assert self._look() == self._before

    def _look(self) -> dict[str, tuple[list[int], str]]:
        return {g.id: (self._lab.qemu(g.id), self._lab.boot_id(g)) for g in self._guests}
