"""Placement requests, made of the rows of instances and of what these refer to."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import select

from controller.db.bulk import among
from controller.db.models import Image, Instance, InstanceType, Network, PlacementGroup, Reservation
from controller.domain.networks import NetworkKind
from controller.domain.placement_groups import GroupStrategy
from controller.operations.cloud import Transaction
from controller.operations.instances.locking import LockedInstance, chunks
from scheduler.placement.host_row import listed
from scheduler.placement.request import Request


@dataclass(frozen=True)
class ReservationSpec:
    """What all instances of one reservation ask for; at least ``least`` of them are placed, or none."""

    least: int
    architecture: str
    hypervisor: str
    image: str
    image_labels: str | None
    type_labels: str | None
    kind: str

    @property
    def pinned(self) -> bool:
        """Whether the network's leases are pinned to hosts."""
        return self.kind == NetworkKind.PINNED

    def request(self, instances: Sequence[LockedInstance], group_strategy: str, group_hosts: frozenset[str]) -> Request:
        """The request for these instances, which are identical."""
        first = instances[0]
        return Request(
            count=len(instances),
            vcpus=first.vcpus,
            memory_mib=first.memory_mib,
            disk_gib=first.disk_gib,
            architecture=self.architecture,
            hypervisor=self.hypervisor,
            zone=first.zone,
            labels=tuple(sorted(listed(self.image_labels) | listed(self.type_labels))),
            image=self.image,
            group_strategy=group_strategy,
            group_hosts=group_hosts,
        )


def specs_of(tx: Transaction, instances: Sequence[LockedInstance]) -> dict[str, ReservationSpec]:
    """What each reservation of these instances asks for, by its id; one statement."""
    first_of = {i.reservation_id: i.id for i in instances}
    found: dict[str, ReservationSpec] = {}
    for ids in chunks(sorted(first_of.values())):
        query = (
            select(
                Instance.reservation_id,
                Reservation.min_count,
                Image.architecture,
                Image.hypervisor,
                Image.sha256,
                Image.required_labels,
                InstanceType.required_labels,
                Network.kind,
            )
            .join(Reservation, Reservation.id == Instance.reservation_id)
            .join(Image, Image.id == Instance.image_id)
            .join(Network, Network.id == Instance.network_id)
            .outerjoin(InstanceType, InstanceType.name == Instance.instance_type)
            .where(among(Instance.id, ids))
        )
        found |= {row[0]: ReservationSpec(*row[1:]) for row in tx.session.execute(query)}
    return found


def alike(instances: Sequence[LockedInstance]) -> list[list[LockedInstance]]:
    """Groups of instances that one placement serves: whole reservations, the oldest first; those that asked for a
    certain address before those that take any."""
    groups: dict[tuple[object, ...], list[LockedInstance]] = defaultdict(list)
    for i in sorted(instances, key=lambda i: (i.state_since, i.reservation_id, i.launch_index)):
        alone = i.reservation_id if i.wanted_ip else ""
        key = (i.network_id, i.image_id, i.instance_type, i.vcpus, i.memory_mib, i.disk_gib, i.zone, i.group_id, alone)
        groups[key].append(i)
    return sorted(groups.values(), key=lambda group: not group[0].wanted_ip)


def lock_groups(tx: Transaction, instances: Sequence[LockedInstance]) -> Mapping[str, str]:
    """The strategies of the placement groups, by id; the groups stay locked, so that two schedulers never place
    members of one group at the same time."""
    ids = {i.group_id for i in instances if i.group_id}
    if not ids:
        return {}
    locked = select(PlacementGroup).where(among(PlacementGroup.id, sorted(ids))).order_by(PlacementGroup.id)
    return {g.id: GroupStrategy(g.strategy) for g in tx.session.scalars(locked.with_for_update())}


def hosts_of_group(tx: Transaction, group_id: str) -> frozenset[str]:
    """The hosts that carry members of a group."""
    carry = select(Instance.host_id).where(Instance.group_id == group_id, Instance.host_id.is_not(None)).distinct()
    return frozenset(h for h in tx.session.scalars(carry) if h)
