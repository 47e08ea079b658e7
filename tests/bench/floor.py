"""What the same guests cost without a cloud: disks, taps, dnsmasq and QEMU by a plain loop with a window."""

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.pinger import Pinger
from tests.labs.servers.guarded import find_program

_BRIDGE, _GATEWAY, _PREFIX = "floor0", "10.77.0.1", 16
_METADATA = "169.254.169.254"
_FIRST = 256  # 10.77.1.0
_PING_EVERY_S, _POLL_S = 0.25, 0.02


@dataclass(frozen=True)
class Floor:
    """What was seen: how many answered, and after how many seconds each."""

    answering: int
    wall_s: float
    answered_s: tuple[float, ...]


@dataclass(frozen=True)
class Plan:
    """How many guests of what."""

    folder: Path
    image: Path
    count: int
    window: int
    memory_mib: int
    tcg_cache_mib: int
    public_key: str
    deadline_s: float


def run(plan: Plan) -> Floor:
    """Boot them, never more than the window at once, until each has answered a ping; nothing is left afterwards."""
    plan.folder.mkdir()
    with ExitStack() as stack:
        stack.enter_context(_network(plan))
        pinger = stack.enter_context(Pinger())
        return _loop(plan, pinger, stack)


def _loop(plan: Plan, pinger: Pinger, stack: ExitStack) -> Floor:
    begin = time.monotonic()
    _ip(*(f"tuntap add {_tap(n)} mode tap\nlink set {_tap(n)} master {_BRIDGE} up" for n in range(plan.count)))
    started = 0
    pending: set[str] = set()
    answered: list[float] = []
    asked_at = 0.0
    while len(answered) < plan.count and time.monotonic() - begin < plan.deadline_s:
        while started < plan.count and len(pending) < plan.window:
            stack.enter_context(_guest(plan, started))
            pending.add(_address(started))
            started += 1
        now = time.monotonic()
        if now - asked_at >= _PING_EVERY_S:
            asked_at = now
            pinger.ask(pending)
        for address in pinger.answers() & pending:
            pending.remove(address)
            answered.append(round(time.monotonic() - begin, 2))
        time.sleep(_POLL_S)
    return Floor(len(answered), round(time.monotonic() - begin, 2), tuple(answered))


@contextmanager
def _guest(plan: Plan, number: int) -> Iterator[None]:
    disk = plan.folder / f"{number}.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", plan.image, "-F", "qcow2", disk, "1G"], check=True)
    argv = [find_program("qemu-system-x86_64", package="qemu-system-x86"), "-nodefaults", "-no-user-config"]
    argv += ["-display", "none", "-machine", "pc,usb=off", "-accel", f"tcg,tb-size={plan.tcg_cache_mib}"]
    argv += ["-m", str(plan.memory_mib), "-drive", f"file={disk},if=none,id=disk,format=qcow2,cache=writeback"]
    argv += ["-device", "virtio-blk-pci,drive=disk", "-serial", f"file:{plan.folder / str(number)}.console"]
    argv += ["-netdev", f"tap,id=net,ifname={_tap(number)},script=no,downscript=no"]
    argv += ["-device", f"virtio-net-pci,netdev=net,mac={_mac(number)},romfile="]
    argv += ["-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng"]
    with _program(argv, plan.folder / "qemu.log"):
        yield


@contextmanager
def _network(plan: Plan) -> Iterator[None]:
    """A bridge with DHCP and a metadata service, as the guests of a cloud have."""
    _ip(f"link add {_BRIDGE} type bridge forward_delay 0", f"addr add {_GATEWAY}/{_PREFIX} dev {_BRIDGE}")
    try:
        _ip(f"addr add {_METADATA}/32 dev {_BRIDGE}", f"link set {_BRIDGE} up")
        hosts = plan.folder / "hosts"
        hosts.write_text("".join(f"{_mac(n)},{_address(n)},vm{n}\n" for n in range(plan.count)))
        argv = [find_program("dnsmasq", package="dnsmasq-base"), "--keep-in-foreground", "--conf-file=/dev/null"]
        argv += ["--user=root", "--port=0", f"--interface={_BRIDGE}", "--bind-interfaces", "--except-interface=lo"]
        argv += ["--no-ping", "--dhcp-authoritative", "--pid-file=", "--quiet-dhcp"]
        argv += ["--dhcp-range=10.77.0.0,static,255.255.0.0,1h", f"--dhcp-lease-max={plan.count}"]
        argv += [f"--dhcp-hostsfile={hosts}", f"--dhcp-leasefile={plan.folder / 'leases'}"]
        argv += [f"--dhcp-option=121,{_METADATA}/32,{_GATEWAY},0.0.0.0/0,{_GATEWAY}"]
        stub = [sys.executable, "-m", "tests.labs.system.metadata_stub", _METADATA, str(_metadata(plan))]
        with _program(argv, plan.folder / "dnsmasq.log"), _program(stub, plan.folder / "metadata.log"):
            yield
    finally:
        # The taps of a bridge that is removed stay.
        _ip(*(f"link del {p.name}" for p in Path("/sys/class/net").glob("floortap*")), f"link del {_BRIDGE}")


def _metadata(plan: Plan) -> Path:
    folder = plan.folder / "metadata"
    keys = folder / "latest/meta-data/public-keys"
    (keys / "0").mkdir(parents=True)
    (keys / "index").write_text("0=bench")
    (keys / "0/openssh-key").write_text(plan.public_key)
    (folder / "latest/meta-data/instance-id").write_text("i-0123456789abcdef0")
    (folder / "latest/meta-data/local-hostname").write_text("floor.internal")
    return folder


@contextmanager
def _program(argv: Sequence[str], log: Path) -> Iterator[None]:
    with log.open("ab") as output:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield
    finally:
        process.kill()
        process.wait(30)


def _ip(*lines: str) -> None:
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines) + "\n", text=True, check=True)


def _tap(number: int) -> str:
    return f"floortap{number}"


def _mac(number: int) -> str:
    return f"52:54:77:00:{number >> 8:02x}:{number & 255:02x}"


def _address(number: int) -> str:
    return f"10.77.{(_FIRST + number) >> 8}.{(_FIRST + number) & 255}"
