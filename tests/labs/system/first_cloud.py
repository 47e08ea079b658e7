"""What the steps of the first cloud's story share: the cloud, its machines, how they are looked at."""

import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from controller.domain.ids import domain_uuid
from tests.labs.servers.server import free_ports
from tests.labs.system.running_cloud import RunningCloud, Shell, processes_with, run

METADATA = "169.254.169.254"
LINK_LOCAL = "169.254.77.77"
IP_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


class Scenario:
    """The cloud and what the steps before have made."""

    def __init__(self, state: Path) -> None:
        # What another test's cloud has switched on, that one switches off.
        self.forwarded = "0\n" if "pileus_" in run(["nft", "list", "tables"]) else IP_FORWARD.read_text()
        self.cloud = RunningCloud(state, state / "venv/bin")
        self.port = free_ports(1)[0]
        began = time.monotonic()
        self.said = RunningCloud.quickstart(state, "--port", str(self.port))
        self.took_s = time.monotonic() - began
        self.demo = Shell(state / "demo-key.pem")
        self.key = state.parent / "mine.pem"
        self.shell = Shell(self.key)
        self.ids: list[str] = []
        self.addresses: list[str] = []

    @property
    def demo_id(self) -> str:
        return self._found(r"a virtual machine: (i-[0-9a-f]{17}), address")

    @property
    def demo_address(self) -> str:
        return self._found(r"address ([\d.]+)")

    def _found(self, pattern: str) -> str:
        found = re.search(pattern, self.said)
        assert found, self.said
        return found[1]

    def qemu(self, instance_id: str) -> list[int]:
        uuid = domain_uuid(self.cloud.cloud_id, instance_id)
        return [p for p in processes_with(f"{self.cloud.state}/") if uuid in command_line(p)]

    def pids(self) -> dict[str, list[int]]:
        return {i: self.qemu(i) for i in [self.demo_id, *self.ids]}

    def boots(self) -> list[str]:
        return [self.shell.run(a, "cat /proc/sys/kernel/random/boot_id").strip() for a in self.addresses]


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


@contextmanager
def link_local_service() -> Iterator[int]:
    """A service of the machine's own that listens everywhere, at a link-local address too; its port."""
    run(["ip", "address", "add", f"{LINK_LOCAL}/32", "dev", "lo"])
    try:
        with socket.create_server(("0.0.0.0", 0), backlog=100) as server:
            yield int(server.getsockname()[1])
    finally:
        run(["ip", "address", "delete", f"{LINK_LOCAL}/32", "dev", "lo"])
