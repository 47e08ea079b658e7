"""Instance types, seeded with names that stock tools know."""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import select

from controller.db.models import InstanceType
from controller.domain.checks import check_all_found, check_number
from controller.domain.errors import AlreadyExists, InstanceTypeNotFound, InvalidParameter
from controller.domain.host_facts import MOST, check_labels
from controller.operations.cloud import Transaction

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}", re.ASCII)
# name: vCPUs, memory in MiB, disk in GiB. vCPUs and memory are EC2's; p1.tiny is made for the demo image.
SEED = {
    "p1.tiny": (1, 128, 1),
    "t1.micro": (1, 613, 4),
    "t2.nano": (1, 512, 4),
    "t2.micro": (1, 1024, 8),
    "t2.small": (1, 2048, 20),
    "t2.medium": (2, 4096, 40),
    "t2.large": (2, 8192, 80),
    "t3.nano": (2, 512, 4),
    "t3.micro": (2, 1024, 8),
    "t3.small": (2, 2048, 20),
    "t3.medium": (2, 4096, 40),
    "m1.small": (1, 1740, 20),
    "m1.medium": (1, 3840, 40),
    "m1.large": (2, 7680, 80),
    "m1.xlarge": (4, 15360, 160),
    "m5.large": (2, 8192, 80),
    "m5.xlarge": (4, 16384, 160),
    "m5.2xlarge": (8, 32768, 320),
    "c5.large": (2, 4096, 40),
    "c5.xlarge": (4, 8192, 80),
    "r5.large": (2, 16384, 80),
}


@dataclass(frozen=True)
class InstanceTypeView:
    """What an instance of a type is given; ``required_labels`` with commas in between."""

    name: str
    vcpus: int
    memory_mib: int
    disk_gib: int
    required_labels: str
    enabled: bool


def seed(tx: Transaction) -> None:
    """Add the types that are not there yet; those that an operator changed stay."""
    existing = set(tx.session.scalars(select(InstanceType.name)))
    for name, (vcpus, memory_mib, disk_gib) in SEED.items():
        if name not in existing:
            tx.session.add(InstanceType(name=name, vcpus=vcpus, memory_mib=memory_mib, disk_gib=disk_gib))


def list_types(tx: Transaction, names: Collection[str] = ()) -> Sequence[InstanceTypeView]:
    """All types that can be asked for, the smallest first; with names only those.

    Raises:
        InstanceTypeNotFound: there is none of one of the names.
    """
    query = select(InstanceType).where(InstanceType.enabled)
    rows = tx.session.scalars(query.order_by(InstanceType.memory_mib, InstanceType.vcpus, InstanceType.name))
    types = [InstanceTypeView(t.name, t.vcpus, t.memory_mib, t.disk_gib, t.required_labels, t.enabled) for t in rows]
    check_all_found(names, {t.name for t in types}, InstanceTypeNotFound)
    return [t for t in types if not names or t.name in names]


def add_type(
    tx: Transaction, name: str, vcpus: int, memory_mib: int, disk_gib: int, required_labels: Iterable[str] = ()
) -> InstanceType:
    """Add a type; its instances run only on hosts that have all of these labels.

    Raises:
        AlreadyExists, InvalidParameter
    """
    if not _NAME.fullmatch(name):
        reason = "a name is 1 to 64 small letters, digits, dots and hyphens, as m5.large"
        raise InvalidParameter(parameter="name", value=ascii(name[:60]).strip("'"), reason=reason)
    if tx.session.get(InstanceType, name) is not None:
        raise AlreadyExists(kind="instance type", id=name)
    for parameter, value in (("vcpus", vcpus), ("memory_mib", memory_mib), ("disk_gib", disk_gib)):
        check_number(parameter, value, 1, MOST[parameter])
    labels = tuple(sorted(set(required_labels)))
    check_labels(labels)
    row = InstanceType(
        name=name, vcpus=vcpus, memory_mib=memory_mib, disk_gib=disk_gib, required_labels=",".join(labels), enabled=True
    )
    tx.session.add(row)
    return row
