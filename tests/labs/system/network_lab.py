"""A network node, an outside and guests in network namespaces: nothing touches the machine's own network."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from controller.domain.names import bridge_name
from tests.labs.network_rows import make_cloud
from tests.labs.servers.guarded import Guarded, find_program, wait_until

CLOUD_ID = "0a1b2c3d"
UPLINK, OUTSIDE = "198.51.100.1", "198.51.100.2"
LINK_LOCAL = "169.254.169.254"
_REPOSITORY = Path(__file__).parents[3]
_PROGRAMS = {
    "ip": "iproute2",
    "nft": "nftables",
    "dnsmasq": "dnsmasq-base",
    "busybox": "busybox-static",
    "ping": "iputils-ping",
    "nsenter": "util-linux",
}
_UDHCPC = """#!/bin/sh
[ "$1" = bound ] || exit 0
ip address add "$ip/$mask" dev "$interface"
ip route add default via "$router"
echo "$ip $router $dns $domain $hostname $lease"
"""


class Space:
    """A network namespace without a name; it lives as long as its first process."""

    def __init__(self, stack: contextlib.ExitStack, log: Path) -> None:
        holder = Guarded(["sleep", "infinity"], prefix=["unshare", "--net", "--"], log=log)
        stack.enter_context(holder)
        own = Path("/proc/self/ns/net").readlink()

        def apart() -> bool:
            return bool(holder.pid) and Path(f"/proc/{holder.pid}/ns/net").readlink() != own

        holder.wait_until(apart, deadline_s=10, what="no network namespace")
        self.pid = holder.pid
        self.inside = ["nsenter", f"--net=/proc/{self.pid}/ns/net", "--"]
        self.run("ip", "link", "set", "lo", "up")

    def succeeds(self, *argv: str, timeout_s: float = 30) -> bool:
        return self._run(argv, timeout_s).returncode == 0

    def run(self, *argv: str, timeout_s: float = 30) -> str:
        """Standard output. Raises: AssertionError: it failed."""
        done = self._run(argv, timeout_s)
        assert done.returncode == 0, f"{' '.join(argv)}: {done.stdout}{done.stderr}"
        return done.stdout

    def _run(self, argv: Sequence[str], timeout_s: float) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*self.inside, *argv], capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL
        )

    def pings(self, address: str) -> bool:
        return self.succeeds("ping", "-c", "1", "-W", "1", address)

    def connects(self, address: str, port: int) -> bool:
        code = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2)"
        return self.succeeds(sys.executable, "-c", code, address, str(port))

    def get(self, path: str) -> str:
        return self.run("busybox", "timeout", "10", "busybox", "wget", "-q", "-O", "-", f"http://{LINK_LOCAL}{path}")


class NetworkLab:
    """The node with its uplink, the outside, and the guests that a test plugs in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        assert os.geteuid() == 0, "root is needed for namespaces, bridges and a firewall"
        for program, package in _PROGRAMS.items():
            find_program(program, package=package)
        with contextlib.ExitStack() as stack:
            self._set_up(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _set_up(self, stack: contextlib.ExitStack) -> None:
        self.state.mkdir()
        make_cloud(self.state).database.close()
        self.node = Space(stack, self.folder / "node.log")
        self.outside = Space(stack, self.folder / "outside.log")
        # A new namespace has it as the machine has, on which another test's cloud may run.
        self.node.run("sh", "-c", "echo 0 >/proc/sys/net/ipv4/ip_forward")
        self.node.run(*f"ip link add up0 type veth peer name up0 netns {self.outside.pid}".split())
        for space, address in ((self.node, UPLINK), (self.outside, OUTSIDE)):
            space.run("ip", "address", "add", f"{address}/24", "dev", "up0")
            space.run("ip", "link", "set", "up0", "up")
        # As on a machine that is a cloud's guest itself.
        self.outside.run("ip", "address", "add", f"{LINK_LOCAL}/32", "dev", "up0")
        self.node.run("ip", "route", "add", f"{LINK_LOCAL}/32", "dev", "up0")
        for port in ("80", "81"):
            argv = [sys.executable, "-m", "http.server", port]
            stack.enter_context(Guarded(argv, prefix=self.outside.inside, log=self.folder / "outside.log"))
            wait_until(lambda p=port: self.node.connects(OUTSIDE, int(p)), deadline_s=20, what=lambda: "no outside")  # type: ignore[misc]
        self._service = stack.enter_context(self._start_service())
        stack.callback(self._service.kill)

    def _start_service(self) -> "subprocess.Popen[str]":
        """In a process namespace too: the daemons it leaves behind go with it."""
        apart = ["unshare", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--"]
        argv = ["setpriv", "--pdeathsig=KILL", "--", *self.node.inside, *apart]
        argv += [sys.executable, "-m", "tests.labs.system.network_node", str(self.state)]
        self._log = self.folder / "service.log"
        with self._log.open("w") as log:
            return subprocess.Popen(
                argv, cwd=_REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )

    def ask(self, *command: object) -> Any:
        """Have the node do something. Raises: AssertionError: it could not."""
        assert self._service.stdin
        assert self._service.stdout
        self._service.stdin.write(json.dumps(command) + "\n")
        self._service.stdin.flush()
        line = self._service.stdout.readline()
        assert line, f"the node ended: {self._log.read_text()}"
        answer = json.loads(line)
        assert "error" not in answer, f"{command}: {answer['error']}\n{self._log.read_text()}"
        return answer["result"]

    def plug(self, number: int, vlan: int, mac: str) -> Space:
        """A guest on the bridge of a VLAN; its interface is ``eth0``."""
        guest = Space(self._stack, self.folder / f"guest{number}.log")
        self.node.run(*f"ip link add g{number} type veth peer name eth0 netns {guest.pid} address {mac}".split())
        self.node.run("ip", "link", "set", f"g{number}", "master", bridge_name(CLOUD_ID, vlan), "up")
        guest.run("ip", "link", "set", "eth0", "up")
        return guest

    def lease(self, guest: Space) -> list[str]:
        """What DHCP gives the guest: address, router, name server, domain, name, seconds; nothing if nothing."""
        script = self.folder / "udhcpc.sh"
        script.write_text(_UDHCPC)
        script.chmod(0o755)
        done = guest._run(
            f"busybox udhcpc -i eth0 -n -q -f -t 4 -T 1 -O domain -O hostname -O lease -s {script}".split(), 30
        )
        return done.stdout.splitlines()[-1].split() if done.returncode == 0 else []
