"""A site of three machines: the control plane's, and two hosts that join it, each with a libvirtd of its own.

Cables lead from each host to two switches, bridges on the control plane's machine: the site's, over which agents reach
API and broker, and that of the guests' network, which so needs no VLAN of the kernel's.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from sqlalchemy import func, select

from controller.cli.configuration_file import changed_text, write_private
from controller.cli.health import api_problem
from controller.db.models import Claim, Instance, Lease
from controller.domain.names import bridge_name
from controller.operations.hosts import hosts
from tests.labs.servers.postgresql import PostgreSQL
from tests.labs.servers.rabbitmq import RabbitMQ
from tests.labs.system.faults_lab import QUICK, FaultsLab, kill
from tests.labs.system.host_guests import BuildStep, HostGuests
from tests.labs.system.machine import Machine
from tests.labs.system.running_cloud import RunningCloud, run
from tests.labs.system.served import Served

SERVICES = ("network", "metadata", "scheduler", "controller", "api")
# Addresses for documentation (RFC 5737): no route leads there.
_CONTROL, _HOSTS, _PREFIX_LENGTH = "192.0.2.254", ("192.0.2.1", "192.0.2.2"), 24
# The hosts' ends of their cables.
_SITE, _GUESTS = "site", "guests"
# What arrives is dropped before anything sees it; who sent it learns nothing.
_DEAF = """
table inet deaf {{
    chain arriving {{
        type filter hook prerouting priority raw; policy accept;
        iifname "site" ip saddr {sender} drop
    }}
}}
"""
_NO_LONGER_DEAF = "delete table inet deaf\n"


class SiteHost:
    """A host: a machine on two cables, and its agent, whose folder is ``state``."""

    def __init__(self, folder: Path, number: int, *, programs: Path) -> None:
        self.name = f"node-{'ab'[number]}"
        self.machine = Machine(folder, name=self.name)
        self.state = folder / self.name
        self._programs = programs
        self._address = _HOSTS[number]
        self._ports = {_SITE: f"{_SITE}{number}", _GUESTS: f"{_GUESTS}{number}"}  # by the cable's end on the host
        self._served = Served(self.machine, self.state, programs=programs, logs=folder)

    @property
    def guests(self) -> HostGuests:
        """What it carries, once it has joined."""
        return HostGuests(self.machine, self.state, RunningCloud(self.state, self._programs).cloud_id)

    def power_on(self, switches: Mapping[str, str]) -> None:
        """Boot, with its cables in these switches; the agent is not started."""
        self.machine.power_on()
        for end, port in self._ports.items():
            run(["ip", "link", "add", port, "type", "veth", "peer", "name", end, "netns", str(self.machine.pid)])
            run(["ip", "link", "set", "dev", port, "master", switches[end], "up"])
            self.machine.run("ip", "link", "set", "dev", end, "up")
        self.machine.run("ip", "address", "add", f"{self._address}/{_PREFIX_LENGTH}", "dev", _SITE)
        # The bridge of the guests' network has the same name on every host.
        self.machine.run(*_new_bridge(switches[_GUESTS]))
        self.machine.run("ip", "link", "set", "dev", switches[_GUESTS], "up")
        self.machine.run("ip", "link", "set", "dev", _GUESTS, "master", switches[_GUESTS])

    def power_off(self) -> None:
        """Power failure: its processes end at once, without a word to any peer."""
        for port in self._ports.values():
            run(["ip", "link", "delete", "dev", port])
        self.machine.power_off()

    @contextlib.contextmanager
    def cut_off(self) -> Iterator[None]:
        """Until the block ends, what host and control plane send each other is lost; its guests' frames are not."""
        nft = ["nft", "-f", "-"]
        on_host = [*self.machine.prefix, *nft]
        with contextlib.ExitStack() as stack:
            run(on_host, stdin=_DEAF.format(sender=_CONTROL))
            stack.callback(run, on_host, stdin=_NO_LONGER_DEAF)
            run(nft, stdin=_DEAF.format(sender=self._address))
            stack.callback(run, nft, stdin=_NO_LONGER_DEAF)
            yield

    def join(self, url: str, token: str) -> None:
        """`pileus join`; then what a test wants otherwise."""
        RunningCloud(self.state, self._programs, prefix=self.machine.prefix).pileus("join", url, token)
        values = {option: value for option, value in QUICK.items() if option[0] in ("compute", "bus")}
        values["bus", "heartbeat_s"] = 3
        file = self.state / "pileus.conf"
        write_private(file, changed_text(file.read_text(), values))

    @property
    def agent_runs(self) -> bool:
        return bool(self._served.pids("compute"))

    def start_agent(self) -> None:
        self._served.start("compute")

    def kill_agent(self) -> None:
        """kill -9; returns when it is gone."""
        (pid,) = self._served.pids("compute")
        kill(pid)

    def log_tail(self) -> str:
        return self._served.log_tail("compute")

    def end(self) -> None:
        self.machine.power_off()
        self._served.end()


class PairLab(FaultsLab):
    """The control plane's services as processes on RabbitMQ and PostgreSQL, and two hosts."""

    def __init__(self, folder: Path, *, programs: Path) -> None:
        super().__init__(folder, programs=programs)
        self.hosts = [SiteHost(folder, number, programs=programs) for number in range(len(_HOSTS))]
        self._served = Served(self.machine, self.state, programs=programs, logs=folder)

    def engines(self, stack: contextlib.ExitStack) -> Mapping[tuple[str, str], object]:
        _make_switch(_SITE)
        run(["ip", "address", "add", f"{_CONTROL}/{_PREFIX_LENGTH}", "dev", _SITE])
        broker = stack.enter_context(RabbitMQ(_CONTROL))
        database = stack.enter_context(PostgreSQL())
        stack.callback(self._served.end)
        for host in self.hosts:
            stack.callback(host.end)
        options: Mapping[tuple[str, str], object] = {
            ("bus", "url"): broker.url,
            ("database", "url"): database.new_database(),
            ("api", "listen_host"): _CONTROL,
        }
        self.configure(options)
        self.cloud.pileus("init")  # of this database
        _make_switch(self._switches[_GUESTS])
        return options

    def up(self) -> None:
        # First: a bridge without a network is only left alone while something is plugged in.
        for host in self.hosts:
            if not host.machine.on:
                self.power_on(host)
        for name in SERVICES:
            if not self._served.pids(name):
                self._served.start(name)
        self.wait(lambda: not api_problem(self.settings()), deadline_s=120, what=self.logs)
        for host in self.hosts:
            self._join(host)
        self.wait(lambda: self.hosts_up() == {h.name for h in self.hosts}, deadline_s=120, what=self.logs)

    def power_on(self, host: SiteHost) -> None:
        """Boot a host; its agent is not started."""
        host.power_on(self._switches)

    def hosts_up(self) -> set[str]:
        """The hosts that are heard of."""
        return self.read(lambda tx: {h.id for h in hosts.list_hosts(tx) if h.up})

    def host_of(self, instance_id: str) -> SiteHost:
        """Where an instance was placed; waits until it has been."""
        query = select(Instance.host_id).where(Instance.id == instance_id)
        self.wait(lambda: self.read(lambda tx: tx.session.scalar(query)) is not None, what=self.logs)
        name = self.read(lambda tx: tx.session.scalar(query))
        return next(h for h in self.hosts if h.name == name)

    def holds(self, instance_id: str) -> int:
        """How many claims and addresses an instance has."""
        queries = [
            select(func.count()).select_from(table).where(table.instance_id == instance_id) for table in (Claim, Lease)
        ]
        return self.read(lambda tx: sum(tx.session.scalar(q) or 0 for q in queries))

    def qemu(self, instance_id: str) -> list[int]:
        return [pid for host in self.hosts for pid in host.guests.qemu(instance_id)]

    def wait_step(self, instance_id: str, step: BuildStep) -> None:
        self.host_of(instance_id).guests.wait_step(instance_id, step, lambda: self.cloud.scenarios([instance_id]))

    def logs(self) -> str:
        return "\n".join([self._served.log_tail(*SERVICES), *(h.log_tail() for h in self.hosts)])

    @property
    def _switches(self) -> Mapping[str, str]:
        """Where each cable of a host leads; the guests' is the bridge of the first network there will be."""
        return {_SITE: _SITE, _GUESTS: bridge_name(self.cloud.cloud_id, self.settings().network.vlan_first)}

    def _join(self, host: SiteHost) -> None:
        if host.name not in self.read(lambda tx: {h.id for h in hosts.list_hosts(tx)}):
            made = self.cloud.pileus_json("host", "token", "create", "--name-pattern", host.name)
            host.join(self.settings().public_url, str(made["token"]))
        if not host.agent_runs:
            host.start_agent()


def _new_bridge(name: str) -> list[str]:
    return ["ip", "link", "add", "name", name, "type", "bridge", "forward_delay", "0", "stp_state", "0"]


def _make_switch(name: str) -> None:
    run(_new_bridge(name))
    run(["ip", "link", "set", "dev", name, "up"])
