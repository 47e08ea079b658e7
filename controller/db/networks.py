"""Networks and their leases."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from controller.db.base import TABLE_ARGS, Account, Base, Id, Name, Serial
from controller.domain.networks import NetworkKind


class Network(Base):
    """A project's network: one VLAN, one CIDR, one dnsmasq.

    A pooled network gives out addresses by offset: the first ``next_offset`` have been used once and have a lease
    row, the rest is untouched. A pinned one has all its lease rows from the import. ``number`` makes the MAC
    addresses of two networks differ.
    """

    __tablename__ = "networks"
    __table_args__ = (
        UniqueConstraint("physical_network", "vlan"),
        UniqueConstraint("project_id", "name"),
        UniqueConstraint("number"),
        TABLE_ARGS,
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    number: Mapped[int]
    project_id: Mapped[str | None] = mapped_column(Account, ForeignKey("projects.id"))
    name: Mapped[str] = mapped_column(Name)
    physical_network: Mapped[str] = mapped_column(String(64))
    vlan: Mapped[int]
    cidr: Mapped[str] = mapped_column(String(18))
    next_offset: Mapped[int]
    kind: Mapped[str] = mapped_column(String(16), default=NetworkKind.POOLED, server_default=NetworkKind.POOLED)
    created_at: Mapped[datetime]


class Lease(Base):
    """An address and its MAC. It belongs to an instance, or was given back at ``released_at``.

    Until ``free_after`` no other instance gets it: the DHCP server may still know it as the last holder's. NULL: the
    server has no such record, or has deleted it.
    ``dns_name`` is the imported name; empty: the name is made of the address.
    While ``quarantine_host`` is set it is in quarantine: the guest of ``quarantine_instance`` may still use it on that
    host, which was removed without an answer from it.
    """

    __tablename__ = "leases"
    __table_args__ = (
        UniqueConstraint("network_id", "ip"),
        UniqueConstraint("mac"),
        # Free leases, those that were given back longest ago first; MariaDB has no partial indexes.
        Index(
            "ix_leases_free",
            "network_id",
            "instance_id",
            "released_at",
            postgresql_where=text("instance_id IS NULL"),
            sqlite_where=text("instance_id IS NULL"),
        ),
        TABLE_ARGS,
    )

    id: Mapped[int] = mapped_column(Serial, primary_key=True, autoincrement=True)
    network_id: Mapped[str] = mapped_column(ForeignKey("networks.id"))
    ip: Mapped[str] = mapped_column(String(15))
    mac: Mapped[str] = mapped_column(String(17))
    instance_id: Mapped[str | None] = mapped_column(Id, ForeignKey("instances.id"), index=True)
    released_at: Mapped[datetime | None]
    free_after: Mapped[datetime | None]
    dns_name: Mapped[str] = mapped_column(String(255), default="", server_default="")
    quarantine_host: Mapped[str | None] = mapped_column(Name, index=True)
    quarantine_instance: Mapped[str | None] = mapped_column(Id)


class LeasePin(Base):
    """A host that may carry a lease; a lease of a pinned network has at least one."""

    __tablename__ = "lease_pins"
    __table_args__ = TABLE_ARGS

    lease_id: Mapped[int] = mapped_column(ForeignKey("leases.id", ondelete="CASCADE"), primary_key=True)
    host_id: Mapped[str] = mapped_column(Name, ForeignKey("hosts.id"), primary_key=True, index=True)
