"""A network node, alone in namespaces of its own: one line of JSON in, one out, until its input ends.

Run as a module: FOLDER. Commands: ``[name, argument ...]``.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import event, insert, select, update

from api.metadata.service import MetadataService
from controller.db.models import Instance, Lease, Network
from controller.domain.messages import Message, ObserveNetworks, PrepareNetworks, ReconcileGuests, ReconcileNetworks
from controller.domain.states import State
from controller.operations.audit import on_network
from controller.operations.audit.observed_state import ObservedState
from controller.operations.cloud import Cloud, Transaction
from controller.operations.networks import leases, networks
from controller.processes import pid_in, runs, started_with
from network.service import NetworkService
from tests.labs.bus import FakeBus
from tests.labs.network_rows import NOW, open_cloud


class Node:
    """The two services of a network node, and what a test wants to do to them."""

    def __init__(self, folder: Path) -> None:
        self._root = folder / "network"
        self._cloud: Cloud = open_cloud(folder, driver="linux")
        self._network = NetworkService(self._cloud)
        self._metadata = MetadataService(self._cloud)
        self._lease_reads = 0
        event.listen(self._cloud.database.engine, "after_cursor_execute", self._count)

    def _count(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        self._lease_reads += "leases.dns_name" in statement

    def lease_reads(self) -> int:
        """How many statements have read leases for DHCP and DNS."""
        return self._lease_reads

    def remove_lease(self, ip: str) -> None:
        self._cloud.write(lambda tx: tx.session.query(Lease).filter(Lease.ip == ip).delete())

    def wire(self, network_ids: Sequence[str], instance_ids: Sequence[str]) -> list[str]:
        """The instances whose hosts got a command."""
        assert isinstance(self._cloud.bus, FakeBus)
        self._cloud.bus.sent.clear()
        self._network.handle([PrepareNetworks(tuple(network_ids), tuple(instance_ids))])
        messages = [m for m in self._cloud.bus.sent if isinstance(m, ReconcileGuests)]
        return sorted(g.instance_id for m in messages for g in m.guests)

    def sweep(self) -> None:
        self._network.sweep()

    def audit(self) -> list[str]:
        """What the auditor says of this node."""
        return self._violations(ObserveNetworks())

    def mend(self) -> list[str]:
        """What it says after a repair."""
        return self._violations(ReconcileNetworks())

    def _violations(self, question: Message) -> list[str]:
        seen = ObservedState(network=self._network.answer(question))
        silent = [str(b) for b in [seen.network.error] if b] if seen.network else []
        return silent + self._cloud.read(lambda tx: [b.what for check in on_network.CHECKS for b in check(tx, seen)])

    def activate(self) -> None:
        """All instances were built a while ago."""
        values: dict[Any, Any] = {"state": State.ACTIVE, "state_since": NOW - timedelta(hours=1)}
        self._cloud.write(lambda tx: tx.session.query(Instance).update(values))

    def restart(self) -> None:
        """As after the death of the process: nothing is remembered."""
        self._network = NetworkService(self._cloud)

    def metadata(self) -> None:
        self._metadata.start()

    def destroy(self) -> None:
        self._metadata.stop()
        self._network.destroy()

    def pids(self) -> dict[str, int]:
        """The living dnsmasq of each network."""
        found = {}
        for folder in sorted(self._root.glob("net-*")):
            pid = pid_in(folder / "pid")
            if pid is not None and runs(pid, f"--conf-file={folder / 'dnsmasq.conf'}"):
                found[folder.name] = pid
        return found

    def processes(self) -> list[int]:
        """Every dnsmasq that serves this cloud, whatever pid files say."""
        return sorted(started_with("dnsmasq", f"--conf-file={self._root}/"))

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)

    def signal(self, pid: int, name: str) -> None:
        os.kill(pid, signal.Signals[name])

    def delete_network(self, network_id: str) -> None:
        def delete(tx: Transaction) -> None:
            tx.session.query(Lease).filter(Lease.network_id == network_id).delete()
            tx.session.query(Instance).filter(Instance.network_id == network_id).delete()
            tx.session.query(Network).filter(Network.id == network_id).delete()

        self._cloud.write(delete)

    def give_back(self, instance_id: str) -> None:
        """What happens when a host says that a guest is gone."""
        self._cloud.write(lambda tx: leases.give_back(tx, [instance_id]))

    def quarantined(self) -> list[str]:
        """The addresses that no instance has or may have yet."""
        query = select(Lease.ip).where(Lease.free_after.is_not(None)).order_by(Lease.ip)
        return list(self._cloud.read(lambda tx: tx.session.scalars(query).all()))

    def resize(self, network_id: str, cidr: str) -> None:
        self._cloud.write(lambda tx: networks.resize_network(tx, network_id, cidr))

    def has_run(self, instance_id: str) -> None:
        run = update(Instance).where(Instance.id == instance_id).values(launched_at=self._cloud.clock())
        self._cloud.write(lambda tx: tx.session.execute(run))

    def fill(self, network_id: str, count: int) -> None:
        """So many more instances in the network, as the one that is there, from the third address on."""

        def insert_all(tx: Transaction) -> None:
            network = tx.session.get_one(Network, network_id)
            one = tx.session.scalars(select(Instance).where(Instance.network_id == network_id)).first()
            assert one is not None
            alike = {c.name: getattr(one, c.name) for c in Instance.__table__.columns}
            numbers = range(3, 3 + count)
            instances = [{**alike, "id": f"i-{n:017x}", "launch_index": n} for n in numbers]
            first = int(IPv4Network(network.cidr).network_address)
            leases = [
                {
                    "network_id": network_id,
                    "ip": str(IPv4Address(first + n)),
                    "mac": f"52:54:00:01:{n >> 8:02x}:{n & 255:02x}",
                    "instance_id": f"i-{n:017x}",
                    "dns_name": "",
                }
                for n in numbers
            ]
            tx.session.execute(insert(Instance.__table__), instances)  # type: ignore[arg-type]
            tx.session.execute(insert(Lease.__table__), leases)  # type: ignore[arg-type]

        self._cloud.write(insert_all)

    def add_lease(self, network_id: str, ip: str, mac: str, instance_id: str) -> None:
        self._cloud.write(
            lambda tx: tx.session.add(Lease(network_id=network_id, ip=ip, mac=mac, instance_id=instance_id))
        )


def main(folder: Path) -> None:
    # Logs go to the standard error: the standard output belongs to the answers.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    node = Node(folder)
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        command: Callable[..., Any] = getattr(node, name)
        try:
            answer = {"result": command(*arguments)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
