"""What the rows say a host is to make true: the commands that go to its agent."""

from collections.abc import Iterable, Sequence
from itertools import groupby

from sqlalchemy import select

from controller.db.models import Image, Lease, Network
from controller.domain.messages import Desired, GuestSpec, ImageSpec, NicSpec, ReconcileGuests
from controller.domain.states import State
from controller.operations.cloud import Transaction
from controller.operations.held import HeldInstance, chunks
from controller.operations.image_urls import image_url

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
# One message holds so many guests at most: a few hundred KiB.
_PER_MESSAGE = 200


def reconcile_commands(tx: Transaction, instances: Iterable[HeldInstance]) -> list[ReconcileGuests]:
    """One command a host (more only for very many guests) that makes these instances what their rows say.

    Instances without a host, and those in a state that asks nothing of one, are left out.
    """
    wanted = sorted(
        (i for i in instances if i.host_id is not None and i.state in DESIRED), key=lambda i: i.host_id or ""
    )
    nics = _nics(tx, [i.id for i in wanted])
    images = _images(tx, {i.image_id for i in wanted if DESIRED[i.state] is not Desired.ABSENT})
    commands = []
    for host, group in groupby(wanted, key=lambda i: i.host_id or ""):
        guests = [_spec(i, nics.get(i.id, ()), images.get(i.image_id)) for i in group]
        commands += [
            ReconcileGuests(host, tuple(guests[n : n + _PER_MESSAGE])) for n in range(0, len(guests), _PER_MESSAGE)
        ]
    return commands


def _spec(instance: HeldInstance, nics: Sequence[NicSpec], image: ImageSpec | None) -> GuestSpec:
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
    )


def _nics(tx: Transaction, ids: Sequence[str]) -> dict[str, tuple[NicSpec, ...]]:
    found: dict[str, tuple[NicSpec, ...]] = {}
    for chunk in chunks(ids):
        rows = tx.session.execute(
            select(
                Lease.instance_id, Lease.ip, Lease.mac, Network.id, Network.vlan, Network.cidr, Network.physical_network
            )
            .join(Network, Network.id == Lease.network_id)
            .where(Lease.instance_id.in_(chunk))
            .order_by(Lease.id)
        )
        for instance_id, ip, mac, network_id, vlan, cidr, physical in rows:
            nic = NicSpec(network_id, vlan, mac, ip, int(cidr.partition("/")[2]), physical)
            found[instance_id or ""] = (*found.get(instance_id or "", ()), nic)
    return found


def _images(tx: Transaction, ids: Iterable[str]) -> dict[str, ImageSpec]:
    images = tx.session.scalars(select(Image).where(Image.id.in_(list(ids))))
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
