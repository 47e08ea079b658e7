"""What network and compute nodes need of their machine: programs, kernel, ports; and what stands in their way."""

import os
import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from controller.cli.checks.item import Item, Subject, fail, ok, warn
from controller.cli.free_resources import port_is_free
from controller.cli.health import api_problem
from controller.domain.errors import CommandFailed
from controller.programs import nft
from controller.programs.run import run

_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
_PACKAGES = {
    "ip": "iproute2",
    "nft": "nftables",
    "dnsmasq": "dnsmasq-base",
    "qemu-img": "qemu-utils",
    "libvirtd": "libvirt-daemon libvirt-daemon-driver-qemu",
    "tini": "tini",
    "qemu": "qemu-system-x86",
}
_QEMU = "qemu-system-x86_64"
_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
_DNS_PORT = 53


def network_programs(subject: Subject) -> Sequence[Item]:
    """The programs of the network node."""
    return _programs({"ip": "ip", "nft": "nft", "dnsmasq": subject.settings.network.dnsmasq})


def compute_programs(subject: Subject) -> Sequence[Item]:
    """The programs of a host; its own libvirtd only where no other is named."""
    wanted = {"qemu-img": "qemu-img"}
    own = {"libvirtd": "libvirtd", "tini": "tini", "qemu": _QEMU}
    return _programs(wanted if subject.settings.compute.libvirt_uri else wanted | own)


def trunk(subject: Subject) -> Sequence[Item]:
    """The interface that carries the VLANs, and a kernel that can."""
    name = subject.settings.network.trunk
    if not name:
        advice = "set [network] trunk on every host and on the network node, unless this is the only machine"
        return [warn("trunk", "none: networks end at this machine", advice)]
    if not Path("/sys/class/net", name).exists():
        return [fail("trunk", f"there is no interface {name}", "see [network] trunk and `ip link`")]
    if not Path("/proc/net/vlan").exists() and not _loads("8021q"):
        return [fail("trunk", f"the kernel has no 802.1Q for {name}", "`modprobe 8021q`: networks end at this machine")]
    state = Path("/sys/class/net", name, "operstate").read_text().strip()
    if state == "down":
        return [fail("trunk", f"{name} is down", f"`ip link set {name} up`, or see to the cable")]
    return [ok("trunk", f"{name}, with 802.1Q")]


def forwarding(_subject: Subject) -> Sequence[Item]:
    """Whether this machine routes."""
    if _FORWARD.read_text().strip() == "1":
        return [ok("forwarding", "net.ipv4.ip_forward = 1")]
    return [warn("forwarding", "net.ipv4.ip_forward = 0", "the network service sets it; make it so in /etc/sysctl.d")]


def firewall(_subject: Subject) -> Sequence[Item]:
    """Another firewall that drops what is forwarded: Docker's, for one."""
    try:
        chains = nft.list_chains()
    except (CommandFailed, ValueError) as error:
        return [warn("firewall", f"it cannot be read: {error}", "run this as root")]
    dropping = [
        f"{c['family']} {c['table']} {c['name']}"
        for c in chains
        if c.get("hook") == "forward" and c.get("policy") == "drop" and not c["table"].startswith("pileus_")
    ]
    if dropping:
        advice = "let the guests' bridges through, e.g. `iptables -I DOCKER-USER -i 'pl+' -j ACCEPT` and `-o 'pl+'`"
        return [warn("firewall", f"{', '.join(dropping)} drops what is forwarded", advice)]
    return [ok("firewall", "no other drops what is forwarded")]


def dns_port(_subject: Subject) -> Sequence[Item]:
    """No process listens for DNS on all addresses; dnsmasq needs the port on the guests' gateways only."""
    if _listens_everywhere(Path("/proc/net/udp")) or _listens_everywhere(Path("/proc/net/tcp")):
        advice = "let it listen on its own addresses only: each network's dnsmasq needs port 53 of its gateway"
        return [fail("DNS port", "a name server listens on port 53 of all addresses (`ss -lunp sport = :53`)", advice)]
    return [ok("DNS port", "no process listens on port 53 of all addresses")]


def metadata_port(subject: Subject) -> Sequence[Item]:
    """Free, or ours already."""
    port = subject.settings.network.metadata_port
    if port_is_free(port, "0.0.0.0"):  # noqa: S104 - only probed
        return [ok("metadata port", f"{port} is free")]
    if _is_metadata(port):
        return [ok("metadata port", f"{port} is the running metadata service's")]
    return [fail("metadata port", f"another process listens on {port}", "end it, or set [network] metadata_port")]


def api_port(subject: Subject) -> Sequence[Item]:
    """Free, or ours already."""
    conf = subject.settings.api
    where = f"{conf.listen_host}:{conf.listen_port}"
    if conf.listen_port == 0 or port_is_free(conf.listen_port, conf.listen_host):
        return [ok("API port", f"{where} is free")]
    if problem := api_problem(subject.settings):
        return [
            fail("API port", f"{where} is taken, and {problem}", "end what listens there, or set [api] listen_port")
        ]
    return [ok("API port", f"{where} is a running API's")]


def libvirt(subject: Subject) -> Sequence[Item]:
    """The library is there, and the daemon that is named answers."""
    try:
        import libvirt as library
    except ImportError as error:
        return [fail("libvirt", f"libvirt-python cannot be loaded: {error}", "pip install 'pileus[compute]'")]
    uri = subject.settings.compute.libvirt_uri
    if not uri:
        return [ok("libvirt", "the agent starts a libvirtd of its own")]
    library.registerErrorHandler(lambda _context, _error: None, None)
    try:
        connection = library.openReadOnly(uri)
        version = connection.getVersion()
        connection.close()
    except library.libvirtError as error:
        return [fail("libvirt", f"no answer at {uri}: {error}", "is libvirtd running, and is this user allowed?")]
    return [ok("libvirt", f"{uri}, hypervisor {version // 1000000}.{version // 1000 % 1000}.{version % 1000}")]


def kvm(subject: Subject) -> Sequence[Item]:
    """Hardware virtualization; the device alone is no proof."""
    wanted = subject.settings.compute.domain_type
    flags = Path("/proc/cpuinfo").read_text()
    if os.access("/dev/kvm", os.R_OK | os.W_OK) and re.search(r"^flags\s*:.*\b(svm|vmx)\b", flags, re.MULTILINE):
        return [ok("KVM", "the processor has it")]
    if wanted == "kvm":
        return [fail("KVM", "not usable here", "switch virtualization on in the firmware, load kvm_intel or kvm_amd")]
    return [warn("KVM", "not usable here: guests run emulated, ten times slower", "see the firmware's settings")]


def _programs(wanted: Mapping[str, str]) -> list[Item]:
    found = {name: shutil.which(program, path=_PATH) for name, program in wanted.items()}
    if missing := [name for name, path in found.items() if path is None]:
        packages = " ".join(_PACKAGES[name] for name in missing)
        return [fail("programs", f"{', '.join(missing)} not found", f"apt-get install {packages}")]
    return [ok("programs", ", ".join(filter(None, found.values())))]


def _loads(module: str) -> bool:
    try:
        run(["modprobe", module], timeout_s=10)
    except CommandFailed:
        return False
    return Path("/proc/net/vlan").exists()


def _listens_everywhere(table: Path) -> bool:
    """Whether a row of the kernel's table is 0.0.0.0:53 (and listens, where it is TCP)."""
    rows = [line.split() for line in table.read_text().splitlines()[1:]]
    return any(r[1] == f"00000000:{_DNS_PORT:04X}" and (table.name == "udp" or r[3] == "0A") for r in rows)


def _is_metadata(port: int) -> bool:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=3) as answer:
            return bool(answer.headers.get("Server", "") == "EC2ws")
    except urllib.error.HTTPError as error:
        return bool(error.headers.get("Server", "") == "EC2ws")
    except OSError:
        return False
