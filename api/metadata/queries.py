"""Finds the instance that asks, by the two ends of its connection."""

import base64
import binascii

from sqlalchemy import select

from api.metadata.facts import Facts
from controller.db.models import Image, Instance, Lease, Network, Reservation
from controller.domain.states import State
from controller.operations.cloud import Transaction
from controller.operations.networks.leases import gateway


def find_caller(tx: Transaction, remote: str, local: str) -> Facts | None:
    """The instance that holds ``remote`` in the network whose gateway is ``local``; None if nobody does."""
    query = (
        select(Instance, Lease, Network, Reservation, Image.architecture)
        .join(Lease, Lease.instance_id == Instance.id)
        .join(Network, Network.id == Lease.network_id)
        .join(Reservation, Reservation.id == Instance.reservation_id)
        .join(Image, Image.id == Instance.image_id)
        .where(Lease.ip == remote, Instance.state != State.DELETED)
    )
    for instance, lease, network, reservation, architecture in tx.session.execute(query):
        if gateway(network.cidr) == local:
            return _facts(tx, instance, lease, network, reservation, architecture)
    return None


def _facts(
    tx: Transaction, instance: Instance, lease: Lease, network: Network, reservation: Reservation, architecture: str
) -> Facts:
    return Facts(
        instance_id=instance.id,
        image_id=instance.image_id,
        reservation_id=instance.reservation_id,
        project_id=instance.project_id,
        launch_index=instance.launch_index,
        instance_type=instance.instance_type,
        architecture=architecture,
        zone=instance.zone or tx.settings.api.zone,
        region=tx.settings.api.region,
        ip=lease.ip,
        mac=lease.mac,
        cidr=network.cidr,
        network_id=network.id,
        domain=tx.settings.network.dns_domain,
        key_name=instance.key_name,
        public_key=reservation.public_key.strip(),
        user_data=_decoded(reservation.user_data),
        launched_at=instance.launched_at or instance.created_at,
        dns_name=lease.dns_name,
    )


def _decoded(text: str) -> bytes:
    """User data is kept in base64, as EC2's clients send it."""
    try:
        return base64.b64decode(text)
    except (binascii.Error, ValueError):
        return text.encode()
