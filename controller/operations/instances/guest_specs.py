"""The desired state of guests, as their rows say: the commands that go to the agents of their hosts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import groupby

from sqlalchemy import select

from controller.db.bulk import among
from controller.db.models import Host, Image, Instance, Lease, Network
from controller.domain.guests import Desired
from controller.domain.messages import GuestSpec, ImageSpec, NicSpec, ReconcileGuests
from controller.domain.states import DELETED_BY_OWNER, DESIRED, State
from controller.operations.cloud import Transaction
from controller.operations.images.urls import image_url
from controller.operations.instances.locking import LockedInstance, chunks

# How many guests one message holds at most: a few hundred KiB.
_PER_MESSAGE = 200


@dataclass(frozen=True)
class _Location:
    """The host of an instance, that host's epoch, and the instance's interfaces."""

    host_id: str
    epoch: int
    nics: list[NicSpec] = field(default_factory=list)


def reconcile_commands(tx: Transaction, instances: Iterable[LockedInstance]) -> list[ReconcileGuests]:
    """One command for each host (more for very many guests) with the desired state of these instances.

    Left out are instances without a host, those in a state without a desired state (``states.DESIRED``), and those that
    have left their host since they were read: a command's epoch is read together with the host of its instances.
    """
    wanted = sorted(
        (i for i in instances if i.host_id is not None and i.state in DESIRED), key=lambda i: i.host_id or ""
    )
    locations = _locations(tx, [i.id for i in wanted])
    images = _images(tx, {i.image_id for i in wanted if DESIRED[i.state] is not Desired.ABSENT})
    until = (tx.now + timedelta(seconds=tx.settings.controller.command_expires_s)).isoformat()
    commands = []
    for host, group in groupby(wanted, key=lambda i: i.host_id or ""):
        epoch, guests = 0, []
        for instance in group:
            location = locations.get(instance.id)
            if location is not None and location.host_id == host:
                epoch = location.epoch
                guests.append(_spec(instance, location.nics, images.get(instance.image_id)))
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


def _locations(tx: Transaction, ids: Sequence[str]) -> dict[str, _Location]:
    found: dict[str, _Location] = {}
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
            location = found.setdefault(instance_id, _Location(host_id or "", epoch))
            if ip is not None:
                location.nics.append(NicSpec(network_id, vlan, mac, ip, int(cidr.partition("/")[2]), physical))
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
