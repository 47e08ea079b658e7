"""A pinned network on three hosts."""

from sqlalchemy import update

from controller.db.models import Instance, Lease
from controller.domain.lease_file import LeaseFile, LeaseFormat, LeaseRow, read_leases
from controller.domain.messages import PrepareNetworks
from controller.domain.networks import NetworkKind
from controller.operations.cloud import Transaction
from controller.operations.networks import networks
from controller.operations.networks.pinned_leases import LeaseChanges, export_leases, import_leases
from tests.labs.cloud import TestCloud

CIDR = "10.20.0.0/24"


class PinnedSite:
    """A cloud with three hosts and a pinned network."""

    def __init__(self, cloud: TestCloud) -> None:
        self.cloud = cloud
        for host in ("h1", "h2", "h3"):
            cloud.heartbeat(host)
        self.network = cloud.cloud.write(
            lambda tx: networks.create_network(tx, None, "web", CIDR, kind=NetworkKind.PINNED).id
        )
        cloud.bus.take(PrepareNetworks)

    def take(self, text: str, *, prune: bool = False) -> LeaseChanges:
        return self.take_file(read_leases(text.encode(), LeaseFormat.CSV), prune=prune)

    def take_file(self, file: LeaseFile, *, prune: bool = False) -> LeaseChanges:
        return self.cloud.cloud.write(lambda tx: import_leases(tx, self.network, file, prune=prune))

    def rows(self) -> list[LeaseRow]:
        return self.cloud.cloud.read(lambda tx: export_leases(tx, self.network))

    def use(self, ip: str, host: str) -> str:
        """An instance that holds this lease on this host."""
        (instance_id,) = self.cloud.launch(1, network_id=self.network)

        def hold(tx: Transaction) -> None:
            tx.session.execute(update(Instance).where(Instance.id == instance_id).values(host_id=host))
            tx.session.execute(update(Lease).where(Lease.ip == ip).values(instance_id=instance_id, released_at=None))

        self.cloud.cloud.write(hold)
        return instance_id
