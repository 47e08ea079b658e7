"""docs/site.md by the letter: its blocks, run in order on bare Debian machines with a real systemd; then what an
operator does by habit."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.labs.system.container import Container, World, run

pytestmark = [pytest.mark.system, pytest.mark.soak, pytest.mark.timeout(5400)]

CHECKOUT = Path(__file__).parents[2]
HOSTS = {"control": "10.91.0.11", "node1": "10.91.0.12"}
_BLOCK = re.compile(r"^```(?:sh|ini)\n# ([^\n]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PATIENCE_S = 3000
_SOURCES = ("api", "bin", "compute_agent", "controller", "docs", "etc", "migrations", "network", "requirements")


@dataclass(frozen=True)
class Block:
    """Something to be done on some machines: commands, or a ``file`` to be written."""

    machines: tuple[str, ...]
    text: str
    file: str = ""


def blocks(page: str) -> list[Block]:
    """The blocks of a page that name their machines, in order."""
    found = []
    for head, text in _BLOCK.findall(page):
        if match := re.fullmatch(r"(?:(/\S+) )?on ([\w, ]+)", head):
            names = tuple(n.strip() for n in match[2].split(","))
            found.append(Block(names, text, match[1] or ""))
    return found


class Site:
    """The machines of the page."""

    def __init__(self, world: World) -> None:
        self.control = world.machine("control", HOSTS["control"], HOSTS)
        self.node = world.machine("node1", HOSTS["node1"], HOSTS)
        self.machines: dict[str, Container] = {"control": self.control, "node1": self.node}
        image = run(str(CHECKOUT / "bin/demo-image"), "--cache", timeout_s=_PATIENCE_S).strip()
        for machine in self.machines.values():
            source = machine.tree / "usr/local/src/pileus"
            source.mkdir(parents=True)
            files = [*_SOURCES, "scheduler", "setup.cfg", "pyproject.toml", "README.md"]
            run("cp", "-r", *(str(CHECKOUT / f) for f in files), str(source))
            run("cp", image, str(machine.tree / "usr/local/src/demo.qcow2"))
        self._let_root_in()

    def _let_root_in(self) -> None:
        """How root reaches the hosts is the site's own affair."""
        key = self.control.run("mkdir -pm 700 .ssh; ssh-keygen -q -t ed25519 -N '' -f .ssh/id_ed25519; cat .ssh/*.pub")
        self.control.run("echo 'StrictHostKeyChecking accept-new' >.ssh/config")
        self.node.run(f"mkdir -pm 700 .ssh; echo '{key.strip()}' >.ssh/authorized_keys; systemctl start ssh")

    def follow(self, block: Block) -> None:
        """Do what a block says."""
        for name in block.machines:
            machine = self.machines[name]
            if block.file:
                path = machine.tree / block.file.lstrip("/")
                machine.run(f"umask 027; cat >{block.file} <<'END-OF-FILE'\n{block.text}END-OF-FILE")
                assert path.read_text() == block.text
            else:
                machine.run(block.text, timeout_s=_PATIENCE_S)

    def guests(self) -> list[str]:
        """Process ids of the QEMU processes on the host."""
        return self.node.attempt("pgrep -f '^/usr/bin/qemu-system.*-name guest='").stdout.split()

    def agent(self) -> str:
        """The process id of the agent."""
        return self.node.run("systemctl show -p MainPID --value pileus@compute").strip()

    def status(self) -> str:
        return self.node.run("systemctl show -p StatusText --value pileus@compute")


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with World() as world:
        made = Site(world)
        for block in blocks((CHECKOUT / "docs/site.md").read_text()):
            made.follow(block)
        yield made


def test_the_page_has_blocks_for_every_machine() -> None:
    found = blocks((CHECKOUT / "docs/site.md").read_text())
    assert {name for block in found for name in block.machines} == set(HOSTS)
    assert [b.file for b in found if b.file] == ["/etc/pileus/pileus.conf"]
    assert len(found) >= 10


def test_the_page_ends_with_a_running_guest(site: Site) -> None:
    assert len(site.guests()) == 1
    states = site.control.run("pileus --output json instance list")
    assert '"ACTIVE"' in states
    (group,) = {
        site.node.run(f"grep name=systemd /proc/{pid}/cgroup || cat /proc/{pid}/cgroup") for pid in site.guests()
    }
    assert "/machine.slice/guests-5117e001.service" in group


def test_the_services_run_with_the_rights_of_their_units(site: Site) -> None:
    for name in ("api", "scheduler", "controller", "metadata"):
        assert (
            site.control.run(f"ps -o user= -p $(systemctl show -p MainPID --value pileus@{name})").strip() == "pileus"
        )
    writable = "find /opt/ /etc/pileus /var/lib/pileus -writable ! -path '/var/lib/pileus/images*' -print"
    assert site.control.run(f"runuser -u pileus -- {writable} 2>/dev/null || true") == ""


@pytest.mark.parametrize("order", ["kill -s HUP", "reload", "restart", "kill", "kill -s KILL"])
def test_what_is_done_to_the_agent_reaches_no_guest(site: Site, order: str) -> None:
    before, agent = site.guests(), site.agent()
    assert before
    site.node.run(f"systemctl {order} pileus@compute")
    if order in ("kill -s HUP", "reload"):
        site.node.wait("journalctl -u pileus@compute --since -1min | grep 'configuration read again'")
        assert site.agent() == agent
    else:
        site.node.wait(
            "systemctl is-active pileus@compute &&"
            f' [ "$(systemctl show -p MainPID --value pileus@compute)" != {agent} ]'
        )
    assert site.guests() == before
    assert site.status().strip() == "well"


def test_hup_reads_the_log_level_again_and_ends_no_service(site: Site) -> None:
    pid = site.control.run("systemctl show -p MainPID --value pileus@scheduler")
    site.control.run("sed -i 's/^cloud_id/log_level = DEBUG\\n&/' /etc/pileus/pileus.conf")
    site.control.run("systemctl kill -s HUP pileus@scheduler")
    site.control.wait("journalctl -u pileus@scheduler | grep 'configuration read again.*DEBUG'")
    assert site.control.run("systemctl show -p MainPID --value pileus@scheduler") == pid


def test_a_host_that_never_had_a_libvirt_is_one(site: Site) -> None:
    site.node.run("systemctl stop pileus@compute guests-5117e001; rm -rf /etc/libvirt /var/cache/libvirt")
    site.node.run("systemctl start pileus@compute")
    assert site.status().strip() == "well"


def test_an_agent_without_its_hypervisor_says_so(site: Site) -> None:
    site.node.run("systemctl stop pileus@compute guests-5117e001; mv /usr/sbin/libvirtd /usr/sbin/libvirtd.away")
    try:
        site.node.run("systemctl start --no-block pileus@compute")
        site.node.wait("systemctl show -p StatusText pileus@compute | grep 'libvirt-daemon'")
        assert site.node.attempt("systemctl is-active pileus@compute").stdout.strip() == "activating"
        said = site.node.attempt("pileus check compute")
        assert said.returncode == 1
        assert "fail  running compute" in said.stdout
    finally:
        site.node.run("mv /usr/sbin/libvirtd.away /usr/sbin/libvirtd")
    site.node.wait("systemctl is-active pileus@compute")


def test_a_service_without_its_broker_or_database_says_so(site: Site) -> None:
    for server in ("rabbitmq-server", "postgresql@15-main"):
        site.control.run(f"systemctl stop {server}")
        site.control.wait("systemctl show -p StatusText pileus@scheduler | grep 'not well'")
        assert site.control.attempt("pileus status").returncode == 1
        site.control.run(f"systemctl start {server}")
        site.control.wait("systemctl show -p StatusText pileus@scheduler | grep '=well'")


def test_what_is_done_to_the_all_in_one_unit_reaches_no_guest(site: Site) -> None:
    """The last: node1 leaves the site and becomes a cloud of its own."""
    node = site.node
    node.run("systemctl disable --now pileus@compute; systemctl kill guests-5117e001; systemctl stop guests-5117e001")
    node.run("mv /var/lib/pileus /var/lib/pileus.host; mv /etc/pileus/pileus.conf /etc/pileus/host.conf")
    node.run("/usr/local/src/pileus/bin/install all", timeout_s=_PATIENCE_S)
    node.run("pileus --state /var/lib/pileus init; systemctl enable --now pileus-all")
    node.run("pileus image import /usr/local/src/demo.qcow2 --name demo --public")
    aws = ". /var/lib/pileus/cloudrc; unset -f aws; /opt/pileus/bin/aws ec2"
    image = node.run(f"{aws} describe-images --query 'Images[0].ImageId' --output text").strip()
    node.run(f"{aws} run-instances --image-id {image} --instance-type p1.tiny")
    node.run(f"{aws} wait instance-running")
    address = node.run(
        f"{aws} describe-instances --query 'Reservations[0].Instances[0].PrivateIpAddress' --output text"
    ).strip()
    node.wait(f"ping -c 1 -W 2 {address}", deadline_s=300)
    (guest,) = site.guests()
    for order in ("kill -s HUP", "restart", "kill -s KILL"):
        before = node.run("systemctl show -p MainPID --value pileus-all").strip()
        node.run(f"systemctl {order} pileus-all")
        if order == "kill -s HUP":
            node.wait("journalctl -u pileus-all | grep 'configuration read again'")
            assert node.run("systemctl show -p MainPID --value pileus-all").strip() == before
        else:
            node.wait(
                f'systemctl is-active pileus-all && [ "$(systemctl show -p MainPID --value pileus-all)" != {before} ]'
            )
        assert site.guests() == [guest], order
        node.run(f"ping -c 1 -W 10 {address}")
