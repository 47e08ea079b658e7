"""A network of its own with DHCP, an EC2 metadata stub and QEMU guests; gone with the test run."""

import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.labs.servers.guarded import Guarded, find_program, wait_until

GATEWAY = "10.77.0.1"
METADATA = "169.254.169.254"


class GuestLab:
    """A network namespace without a name: it lives as long as its first process.

    The metadata stub serves the files below ``metadata/`` and wants a version 2 token unless the file
    ``metadata/imdsv1`` is there; ``metadata/requests.log`` has a line for each request.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metadata = folder / "metadata"
        self.key = folder / "key"
        self._stack = contextlib.ExitStack()
        self._inside: list[str] = []

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._set_up(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _set_up(self, stack: contextlib.ExitStack) -> None:
        holder = stack.enter_context(
            Guarded(
                ["sleep", "infinity"],
                prefix=[find_program("unshare", package="util-linux"), "--net", "--"],
                log=self.folder / "holder.log",
            )
        )
        own = Path("/proc/self/ns/net").readlink()

        def apart() -> bool:
            return bool(holder.pid) and Path(f"/proc/{holder.pid}/ns/net").readlink() != own

        holder.wait_until(apart, deadline_s=10, what="no network namespace")
        self._inside = ["nsenter", f"--net=/proc/{holder.pid}/ns/net", "--"]
        find_program("ip", package="iproute2")
        for line in (
            "link set lo up",
            "link add br0 type bridge",
            f"addr add {GATEWAY}/24 dev br0",
            f"addr add {METADATA}/32 dev br0",
            "link set br0 up",
        ):
            self.run("ip", *line.split())
        self.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key))
        dnsmasq = find_program("dnsmasq", package="dnsmasq-base")
        argv = [dnsmasq, "--keep-in-foreground", "--conf-file=/dev/null", "--user=root", "--port=0"]
        argv += ["--interface=br0", "--bind-interfaces", "--no-ping", "--dhcp-authoritative", "--pid-file="]
        # Two minutes, the shortest lease there is.
        argv += ["--dhcp-range=10.77.0.10,10.77.0.99,255.255.255.0,2m", "--log-dhcp", "--log-facility=-"]
        argv += [f"--dhcp-leasefile={self.folder / 'leases'}"]
        self.dnsmasq = stack.enter_context(self.start(argv, "dnsmasq.log"))

    def serve_metadata(self) -> Guarded:
        """Start the metadata stub; a context manager."""
        (self.metadata / "latest/meta-data").mkdir(parents=True, exist_ok=True)
        stub = Path(__file__).with_name("metadata_stub.py")
        return self.start([sys.executable, str(stub), METADATA, str(self.metadata)], "stub.log")

    def write_metadata(self, instance_id: str, *, hostname: str, user_data: str | None) -> None:
        """What one guest is told; with the lab's public key."""
        latest = self.metadata / "latest"
        keys = latest / "meta-data/public-keys"
        (keys / "0").mkdir(parents=True, exist_ok=True)
        (keys / "index").write_text("0=demo")
        (keys / "0/openssh-key").write_text(self.key.with_suffix(".pub").read_text())
        (latest / "meta-data/instance-id").write_text(instance_id)
        (latest / "meta-data/local-hostname").write_text(hostname)
        (latest / "user-data").unlink(missing_ok=True)
        if user_data is not None:
            (latest / "user-data").write_text(user_data)

    def attempt(self, *argv: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a program in the network, whether it succeeds or not."""
        return subprocess.run(
            [*self._inside, *argv],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
        )

    def run(self, *argv: str, timeout_s: float = 60) -> str:
        """Run a program in the network; its standard output. Raises: AssertionError: it failed."""
        done = self.attempt(*argv, timeout_s=timeout_s)
        assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"
        return done.stdout

    def start(self, argv: Sequence[str], log: str) -> Guarded:
        return Guarded(argv, log=self.folder / log, prefix=self._inside)

    def ssh_argv(self, address: str, command: str, *options: str) -> list[str]:
        argv = ["ssh", "-i", str(self.key), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"]
        argv += ["-o", "StrictHostKeyChecking=accept-new", "-o", f"UserKnownHostsFile={self.folder / 'known'}"]
        return [*argv, "-o", "ConnectTimeout=20", "-F", "/dev/null", *options, f"root@{address}", command]

    def ssh(self, address: str, command: str) -> str:
        return self.run(*self.ssh_argv(address, command))


class Guest:
    """A QEMU guest of a lab, without KVM; a context manager.

    ``disk`` is kept at the end: another guest can be booted from it. Without ``rng``, a source of random
    numbers, the first boot waits a second longer for some.
    """

    def __init__(self, lab: GuestLab, disk: Path, *, number: int = 1, memory_mib: int = 96, rng: bool = True) -> None:
        self.lab = lab
        self._log = lab.folder / f"console-{time.monotonic_ns()}.log"
        self._tap = f"tap{number}"
        monitor = self._log.with_suffix(".qmp")
        lab.run("ip", "tuntap", "add", self._tap, "mode", "tap")
        lab.run("ip", "link", "set", self._tap, "master", "br0", "up")
        argv = [find_program("qemu-system-x86_64", package="qemu-system-x86"), "-nodefaults"]
        argv += ["-no-user-config", "-display", "none", "-accel", "tcg,tb-size=32", "-m", str(memory_mib)]
        argv += ["-drive", f"file={disk},if=none,id=disk,format=qcow2,cache=unsafe"]
        argv += ["-device", "virtio-blk-pci,drive=disk", "-serial", f"file:{self._log}"]
        argv += ["-netdev", f"tap,id=net,ifname={self._tap},script=no,downscript=no"]
        argv += ["-device", f"virtio-net-pci,netdev=net,mac=52:54:77:00:00:{number:02x},romfile="]
        if rng:
            argv += ["-object", "rng-random,id=rng,filename=/dev/urandom"]
            argv += ["-device", "virtio-rng-pci,rng=rng"]
        argv += ["-qmp", f"unix:{monitor},server=on,wait=off"]
        self._monitor = monitor
        self.qemu = lab.start(argv, f"{self._log.stem}.qemu.log")

    @property
    def console(self) -> str:
        with contextlib.suppress(OSError):
            return self._log.read_text(errors="replace").replace("\r", "")
        return ""

    def wait_for(self, text: str, *, times: int = 1, deadline_s: float = 120) -> str:
        """Wait until the console has said ``text`` so often; the rest of the last such line."""

        def seen() -> bool:
            assert self.qemu.running, f"QEMU ended: {self.qemu.log_tail()}\n{self.console}"
            parts = self.console.split(text)
            return len(parts) > times and "\n" in parts[times]

        wait_until(seen, deadline_s=deadline_s, what=lambda: f"no {text!r} on the console:\n{self.console}")
        return self.console.split(text)[times].partition("\n")[0].strip()

    def wait_up(self, *, boots: int = 1) -> str:
        """Its address, as soon as it can be reached."""
        return self.wait_for("GUEST-UP ", times=boots)

    def push_power_button(self) -> None:
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.settimeout(10)
            monitor.connect(str(self._monitor))
            stream = monitor.makefile("rw")
            for command in (None, "qmp_capabilities", "system_powerdown"):
                if command:
                    stream.write(json.dumps({"execute": command}) + "\n")
                    stream.flush()
                stream.readline()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.qemu.kill()
        self.lab.run("ip", "link", "del", self._tap)
