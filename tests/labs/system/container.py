"""Machines with a real systemd: bare Debian trees booted by systemd-nspawn, on a network of their own.

The network is a namespace; its only way out, for packages, is slirp4netns: nothing of the machine's network is changed.
"""

import fcntl
import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.labs.servers.guarded import Guarded, find_program, wait_until

_PACKAGES = "systemd,systemd-sysv,dbus,ca-certificates,iproute2,openssh-server,openssh-client,procps,kmod,iputils-ping"
_GATEWAY, _RESOLVER = "10.91.0.1", "10.0.2.3"
# What this machine's package tools were told: mirrors, keys, proxies, certificates.
_APT = ("sources.list", "sources.list.d", "apt.conf.d", "trusted.gpg.d", "keyrings")
_CERTIFICATES = ("/etc/ssl/certs", "/usr/local/share/ca-certificates", "/usr/share/keyrings")
_PIP = ("/etc/pip.conf", "~/.config/pip/pip.conf", "~/.pip/pip.conf")
_TOLD = re.compile(r"(PIP_\w+|https?_proxy|HTTPS?_PROXY|no_proxy|NO_PROXY|SSL_CERT_\w+|REQUESTS_CA_BUNDLE)")
_WORLD = """
ip link set lo up
ip link add br0 type bridge
ip address add {gateway}/24 dev br0
ip link set br0 up
echo 1 >/proc/sys/net/ipv4/ip_forward
nft add table ip nat
nft add chain ip nat out '{{ type nat hook postrouting priority 100; }}'
nft add rule ip nat out oifname tap0 masquerade
touch "$1"
exec sleep infinity
"""
# A control group of its own: nspawn begins below the one that it is in, and that is every container's. It runs in a
# process namespace, and so needs a /proc of that one.
_BOOT = """
mount --bind "$1" "$2"
shift 2
while [ "$1" != -- ]; do echo 0 >"$1/cgroup.procs"; shift; done
shift
mount -t proc proc /proc
exec "$@"
"""
_IDLE = 'ip link set lo up; touch "$1"; exec sleep infinity'


class World:
    """A context manager: the network that containers are on, and their trees."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.folder = Path()
        self._space: Guarded | None = None
        self._tree = Path()

    def __enter__(self) -> Self:
        assert os.geteuid() == 0, "root is needed for containers"
        self.folder = Path(
            self._stack.enter_context(tempfile.TemporaryDirectory(prefix="pileus-site.", dir="/var/tmp"))
        )
        self._space = self.namespace("world", _WORLD.format(gateway=_GATEWAY))
        slirp = find_program("slirp4netns", package="slirp4netns")
        argv = [slirp, "--configure", "--mtu=65520", str(self._space.pid), "tap0"]
        self._stack.enter_context(Guarded(argv, log=self.folder / "slirp.log"))
        self._tree = _cached_tree()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def namespace(self, name: str, script: str) -> Guarded:
        """A network namespace, held by a process that goes with the test."""
        up = self.folder / f"{name}.up"
        argv = ["unshare", "--net", "sh", "-euc", script, "sh", str(up)]
        space = self._stack.enter_context(Guarded(argv, log=self.folder / f"{name}.log"))
        space.wait_until(up.exists, deadline_s=20, what=f"no network namespace {name}")
        return space

    def machine(self, name: str, address: str, hosts: Mapping[str, str]) -> "Container":
        """A bare Debian machine, booted. ``hosts`` is what all machines are called."""
        assert self._space
        space = self.namespace(name, _IDLE)
        inside = ["nsenter", f"--target={self._space.pid}", "--net", "--"]
        run(*inside, "ip", "link", "add", f"v-{name}", "type", "veth", "peer", "eth0", "netns", str(space.pid))
        run(*inside, "ip", "link", "set", f"v-{name}", "master", "br0", "up")
        own = ["nsenter", f"--target={space.pid}", "--net", "--", "ip"]
        run(*own, "address", "add", f"{address}/24", "dev", "eth0")
        run(*own, "link", "set", "eth0", "up")
        run(*own, "route", "add", "default", "via", _GATEWAY)
        tree = self.folder / name
        tree.mkdir()
        run("tar", "-C", str(tree), "-xf", str(self._tree), "--exclude=./dev/*")
        _tell(tree, name, hosts)
        return self._stack.enter_context(Container(name, tree, space.pid, self.folder))


class Container:
    """One machine; a context manager: it is on."""

    def __init__(self, name: str, tree: Path, network: int, folder: Path) -> None:
        self.name = name
        self.tree = tree
        self._network = network
        self._folder = folder
        self._groups: list[Path] = []
        self._nspawn: Guarded | None = None

    def __enter__(self) -> Self:
        nspawn = find_program("systemd-nspawn", package="systemd-container")
        network = self._folder / f"{self.name}.net"
        network.touch()
        argv = [nspawn, "--quiet", "--boot", f"--directory={self.tree}", f"--machine={self.name}", "--register=no"]
        argv += ["--keep-unit", f"--network-namespace-path={network}", "--capability=all", "--bind=/dev/net/tun"]
        argv += ["--resolv-conf=off", "--timezone=off", "--link-journal=no", "--console=pipe"]
        argv += [f"--bind-ro={path}" for path in _package_folders()]
        self._groups = _new_groups(f"pileus-test-{os.getpid()}-{self.name}")
        # A /sys of its own network, and kernel settings of it that may be written.
        words = ["env", "SYSTEMD_NSPAWN_API_VFS_WRITABLE=network"]
        words += ["unshare", "--mount", "--propagation", "private", "sh", "-euc", _BOOT, "sh"]
        words += [f"/proc/{self._network}/ns/net", str(network), *map(str, self._groups), "--", *argv]
        self._nspawn = Guarded(words, log=self._folder / f"{self.name}.console")
        self._nspawn.wait_until(self._is_up, deadline_s=120, what=f"{self.name} has not booted")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._nspawn:
            self._nspawn.kill()
        for group in self._groups:
            for folder in sorted(group.rglob("*"), key=lambda p: len(p.parts), reverse=True):
                if folder.is_dir():
                    folder.rmdir()
            group.rmdir()

    def run(self, script: str, *, timeout_s: float = 300) -> str:
        """What a script of root's prints. Raises: AssertionError: one of its commands failed."""
        done = self.attempt(script, timeout_s=timeout_s)
        said = f"{done.stdout[-4000:]}{done.stderr[-4000:]}"
        assert done.returncode == 0, f"on {self.name}: {script}\nstatus {done.returncode}\n{said}"
        return done.stdout

    def attempt(self, script: str, *, timeout_s: float = 300) -> "subprocess.CompletedProcess[str]":
        """A script of root's, whether it succeeds or not."""
        told = {k: v for k, v in os.environ.items() if _TOLD.fullmatch(k)}
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        given = {**told, "PATH": path, "HOME": "/root", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
        words = ["env", "-i", "-C", "/root", *(f"{k}={v}" for k, v in given.items())]
        words += ["bash", "-euo", "pipefail", "-c", script]
        argv = ["nsenter", f"--target={self._leader()}", "--all", *words]
        return subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL)

    def wait(self, script: str, *, deadline_s: float = 120) -> None:
        """Run a script until it succeeds."""
        last = ""

        def done() -> bool:
            nonlocal last
            found = self.attempt(script)
            last = found.stdout + found.stderr
            return found.returncode == 0

        wait_until(done, deadline_s=deadline_s, what=lambda: f"{script}: {last[-2000:]}\n{self.journal()}")

    def journal(self) -> str:
        """The end of its log."""
        return self.attempt("journalctl --no-pager -n 60").stdout[-6000:]

    def _is_up(self) -> bool:
        return self._leader() != 0 and self.attempt("systemctl is-system-running").stdout.strip() in (
            "running",
            "degraded",
        )

    def _leader(self) -> int:
        assert self._nspawn
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children")
        try:
            return int((children.read_text().split() or ["0"])[0])
        except OSError:
            return 0


def run(*argv: str, timeout_s: float = 300) -> str:
    """What a program of this machine prints. Raises: AssertionError: it failed."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


def _cached_tree() -> Path:
    """A bare Debian of the week as a tar file, which takes half a minute to make."""
    key = hashlib.sha256(f"{_PACKAGES} {date.today().isocalendar()[:2]}".encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pileus"
    cache.mkdir(parents=True, exist_ok=True)
    tree = cache / f"machine-{key}.tar"
    with tree.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tree.exists():
            bootstrap = find_program("mmdebstrap", package="mmdebstrap")
            new = tree.with_suffix(".new.tar")
            argv = ("--mode=root", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", str(new))
            run(bootstrap, *argv, timeout_s=900)
            new.rename(tree)
    return tree


def _tell(tree: Path, name: str, hosts: Mapping[str, str]) -> None:
    """Name, neighbours, and what this machine's package tools know."""
    (tree / "etc/hostname").write_text(f"{name}\n")
    lines = [f"{address} {who}" for who, address in hosts.items()]
    (tree / "etc/hosts").write_text("\n".join(["127.0.0.1 localhost", *lines]) + "\n")
    (tree / "etc/resolv.conf").write_text(f"nameserver {_RESOLVER}\n")
    (tree / "etc/apt/sources.list").unlink()
    for source in [Path("/etc/apt", part) for part in _APT] + [Path(c) for c in _CERTIFICATES]:
        _copy(source, tree / source.relative_to("/"))
    for text in _PIP:
        source = Path(text).expanduser()
        home = Path(text.replace("~", "/root"))
        _copy(source, tree / home.relative_to("/"))


def _copy(source: Path, target: Path) -> None:
    if not source.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = source.is_dir()
    run("cp", "-a", "--remove-destination", f"{source}/." if folder else str(source), f"{target}{'/' * folder}")


def _package_folders() -> Sequence[str]:
    """Folders of this machine that pip takes packages from."""
    texts = [p.read_text() for p in (Path(t).expanduser() for t in _PIP) if p.exists()]
    texts += [v for k, v in os.environ.items() if k.startswith("PIP_")]
    found = {m for text in texts for m in re.findall(r"(?:^|[\s=]|file://)(/[\w./-]+)", text)}
    found |= {f.removesuffix("/simple") for f in found}  # an index leads to files beside it
    return sorted(f for f in found if Path(f).is_dir())


def _new_groups(name: str) -> list[Path]:
    """A control group in each hierarchy that systemd writes to: its own one, and the unified one."""
    root = Path("/sys/fs/cgroup")
    homes = [root] if (root / "cgroup.controllers").exists() else [root / "systemd", root / "unified"]
    groups = [home / name for home in homes if home.is_dir()]
    for group in groups:
        group.mkdir()
    return groups
