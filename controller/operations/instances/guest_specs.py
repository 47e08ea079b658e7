"""What the rows say a host is to make true: the commands that go to its agent."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import groupby

from sqlalchemy import select

from controller.db.bulk import among
from controller.db.models import Host, Image, Instance, Lease, Network
from controller.domain.guests import Desired
from controller.domain.messages import GuestSpec, ImageSpec, NicSpec, ReconcileGuests
from controller.domain.states import State
from controller.operations.cloud import Transaction
from controller.operations.images.urls import image_url
from controller.operations.instances.locking import LockedInstance, chunks

# What each state asks of the host that carries the instance; REQUESTED has none, UNKNOWN is left alone.
DESIRED = {
    State.BUILDING: Desired.RUNNING,
    State.ACTIVE: Desired.RUNNING,
    State.STARTING: Desired.RUNNING,
    State.REBOOTING: Desired.RUNNING,
    State.STOPPING: Desired.SHUT_OFF,
    State.STOPPED: Desired.SHUT_OFF,
    State.DELETING: Desired.ABSENT,
    State.DELETED: Desired.ABSENT,
    State.ERROR: Desired.ABSENT,
}
# In these its owner has said that the guest may go, disk and all; whatever else removes it keeps the disk for a while.
DELETED_BY_OWNER = frozenset({State.DELETING, State.DELETED})
# One message holds so many guests at most: a few hundred KiB.
_PER_MESSAGE = 200


@dataclass(frozen=True)
class _Place:
    """Where an instance is, in which epoch of its host, and how it is connected."""

    host_id: str
    epoch: int
    nics: list[NicSpec] = field(default_factory=list)


def reconcile_commands(tx: Transaction, instances: Iterable[LockedInstance]) -> list[ReconcileGuests]:
    """One command a host (more only for very many guests) that makes these instances what their rows say.

    Instances without a host, and those in a state that asks nothing of one, are left out; so are those that have left
    their host since they were read: the epoch of a command is read together with the host of its instances.
    """
    wanted = sorted(
        (i for i in instances if i.host_id is not None and i.state in DESIRED), key=lambda i: i.host_id or ""
    )
    places = _places(tx, [i.id for i in wanted])
    images = _images(tx, {i.image_id for i in wanted if DESIRED[i.state] is not Desired.ABSENT})
    until = (tx.now + timedelta(seconds=tx.settings.controller.command_expires_s)).isoformat()
    commands = []
    for host, group in groupby(wanted, key=lambda i: i.host_id or ""):
        epoch, guests = 0, []
        for instance in group:
            place = places.get(instance.id)
            if place is not None and place.host_id == host:
                epoch = place.epoch
                guests.append(_spec(instance, place.nics, images.get(instance.image_id)))
        commands += [
            ReconcileGuests(host, tuple(guests[n : n + _PER_MESSAGE]), epoch, until)
            for n in range(0, len(guests), _PER_MESSAGE)
        ]
    return commands


def _spec(instance: LockedInstance, nics: Sequence[NicSpec], image: ImageSpec | None) -> GuestSpec:
    state = instance.state
    return GuestSpec(
        instance_id=instance.id,
        generation=instance.generation,
        desired=DESIRED[state],
        project_id=instance.project_id,
        name=instance.id,
        vcpus=instance.vcpus,
        memory_mib=instance.memory_mib,
        disk_gib=instance.disk_gib,
        image=image,
        nics=tuple(nics),
        reboot=state is State.REBOOTING,
        may_create=state is State.BUILDING,
        wished_us=round(instance.state_since.timestamp() * 1_000_000) if state is State.REBOOTING else 0,
        keep_disk=state not in DELETED_BY_OWNER,
    )


def _places(tx: Transaction, ids: Sequence[str]) -> dict[str, "_Place"]:
    found: dict[str, _Place] = {}
    for chunk in chunks(ids):
        rows = tx.session.execute(
            select(
                Instance.id,
                Instance.host_id,
                Host.epoch,
                Lease.ip,
                Lease.mac,
                Network.id,
                Network.vlan,
                Network.cidr,
                Network.physical_network,
            )
            .join(Host, Host.id == Instance.host_id)
            .outerjoin(Lease, Lease.instance_id == Instance.id)
            .outerjoin(Network, Network.id == Lease.network_id)
            .where(among(Instance.id, chunk))
            .order_by(Lease.id)
        )
        for instance_id, host_id, epoch, ip, mac, network_id, vlan, cidr, physical in rows:
            place = found.setdefault(instance_id, _Place(host_id or "", epoch))
            if ip is not None:
                place.nics.append(NicSpec(network_id, vlan, mac, ip, int(cidr.partition("/")[2]), physical))
    return found


def _images(tx: Transaction, ids: Iterable[str]) -> dict[str, ImageSpec]:
    images = tx.session.scalars(select(Image).where(among(Image.id, list(ids))))
    return {
        i.id: ImageSpec(
            image_id=i.id,
            sha256=i.sha256,
            size_bytes=i.size_bytes,
            format=i.format,
            url=image_url(tx.settings, i.sha256, i.format, tx.now),
            virtual_size_bytes=i.virtual_size_bytes,
        )
        for i in images
    }
