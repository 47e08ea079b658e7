"""What the guest of an instance may know of it, and which guest asks: the read model of the metadata service."""

from dataclasses import dataclass

from controller.db.models import Instance, Lease, Network, Reservation
from controller.domain.names import lease_hostname
from controller.domain.states import State
from controller.domain.user_data import user_data_bytes
from controller.operations.cloud import Transaction
from controller.operations.instances.views import InstanceView, select_views
from controller.operations.networks.leases import gateway


@dataclass(frozen=True)
class GuestMetadata:
    """One instance (without its tags), as its guest may know it. ``cidr`` is its network's, ``domain`` that of its
    network's DNS; ``public_key`` and ``user_data`` are empty where there are none."""

    instance: InstanceView
    zone: str
    region: str
    cidr: str
    domain: str
    public_key: str
    user_data: bytes

    @property
    def hostname(self) -> str:
        """The instance's name in the DNS of its network."""
        return f"{lease_hostname(self.instance.dns_name, self.instance.ip)}.{self.domain}"


def find_guest(tx: Transaction, remote: str, local: str) -> GuestMetadata | None:
    """The instance that holds the address ``remote`` in the network whose gateway is ``local``; None: there is none.
    One statement."""
    query = (
        select_views()
        .add_columns(Lease.ip, Lease.mac, Lease.dns_name, Network.cidr, Reservation.public_key, Reservation.user_data)
        .join(Lease, Lease.instance_id == Instance.id)
        .join(Network, Network.id == Lease.network_id)
        .where(Lease.ip == remote, Instance.state != State.DELETED)
    )
    for *row, cidr, public_key, user_data in tx.session.execute(query):
        if gateway(cidr) == local:
            view = InstanceView(*row)
            return GuestMetadata(
                instance=view,
                zone=view.zone or tx.settings.api.zone,
                region=tx.settings.api.region,
                cidr=cidr,
                domain=tx.settings.network.dns_domain,
                public_key=public_key.strip(),
                user_data=user_data_bytes(user_data),
            )
    return None
