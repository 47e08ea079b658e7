"""Reservations, instances and their history."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from controller.db.base import TABLE_ARGS, Account, Base, Id, LongText, Name, Serial


class Reservation(Base):
    """One accepted request for instances; what all of them share."""

    __tablename__ = "reservations"
    __table_args__ = (UniqueConstraint("project_id", "client_token"), TABLE_ARGS)

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project_id: Mapped[str] = mapped_column(Account, ForeignKey("projects.id"), index=True)
    user_id: Mapped[str] = mapped_column(Id)
    client_token: Mapped[str | None] = mapped_column(String(64))
    request_sha256: Mapped[str] = mapped_column(String(64))
    min_count: Mapped[int]
    user_data: Mapped[str] = mapped_column(LongText, default="")
    public_key: Mapped[str] = mapped_column(LongText, default="")
    created_at: Mapped[datetime]


class Instance(Base):
    """A virtual machine of a project.

    ``state`` changes only by the transition table. ``generation`` rises with every request. ``deadline_at`` is when
    the state has lasted too long, ``ring_at`` when the service in charge is notified again, after ``rings`` times; both
    are NULL while nothing is awaited.
    ``shutdown_behavior`` is what becomes of it when its guest powers itself off: a ``ShutdownBehavior``.
    """

    __tablename__ = "instances"
    __table_args__ = (
        # The order of all lists.
        Index("ix_instances_project_id_position", "project_id", "created_at", "reservation_id", "launch_index"),
        TABLE_ARGS,
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    reservation_id: Mapped[str] = mapped_column(Id, ForeignKey("reservations.id"), index=True)
    launch_index: Mapped[int]
    project_id: Mapped[str] = mapped_column(Account, ForeignKey("projects.id"))
    state: Mapped[str] = mapped_column(String(16), index=True)
    state_since: Mapped[datetime]
    reason_code: Mapped[str] = mapped_column(String(64), default="")
    reason: Mapped[str] = mapped_column(LongText, default="")
    generation: Mapped[int] = mapped_column(default=1)
    deadline_at: Mapped[datetime | None] = mapped_column(index=True)
    ring_at: Mapped[datetime | None] = mapped_column(index=True)
    rings: Mapped[int] = mapped_column(default=0)
    image_id: Mapped[str] = mapped_column(Id, ForeignKey("images.id"), index=True)
    instance_type: Mapped[str] = mapped_column(String(64))
    vcpus: Mapped[int]
    memory_mib: Mapped[int]
    disk_gib: Mapped[int]
    key_name: Mapped[str] = mapped_column(Name, default="")
    zone: Mapped[str] = mapped_column(String(64), default="")
    group_id: Mapped[str | None] = mapped_column(Id, index=True)
    wanted_ip: Mapped[str] = mapped_column(String(15), default="", server_default="")
    shutdown_behavior: Mapped[str] = mapped_column(String(16), default="stop", server_default="stop")
    network_id: Mapped[str] = mapped_column(Id, ForeignKey("networks.id"), index=True)
    host_id: Mapped[str | None] = mapped_column(Name, ForeignKey("hosts.id"), index=True)
    created_at: Mapped[datetime]
    launched_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None] = mapped_column(index=True)


class PlacementGroup(Base):
    """An affinity or anti-affinity group of a project."""

    __tablename__ = "placement_groups"
    __table_args__ = (UniqueConstraint("project_id", "name"), TABLE_ARGS)

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project_id: Mapped[str] = mapped_column(Account, ForeignKey("projects.id"))
    name: Mapped[str] = mapped_column(Name)
    strategy: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime]


class InstanceEvent(Base):
    """One event of an instance's history: what happened, when, and the state after it."""

    __tablename__ = "steps"
    __table_args__ = TABLE_ARGS

    id: Mapped[int] = mapped_column(Serial, primary_key=True, autoincrement=True)
    instance_id: Mapped[str] = mapped_column(Id, ForeignKey("instances.id", ondelete="CASCADE"), index=True)
    at: Mapped[datetime]
    event: Mapped[str] = mapped_column(String(32))
    state: Mapped[str] = mapped_column(String(16))
    detail: Mapped[str] = mapped_column(LongText, default="")


class DeadLetter(Base):
    """A message that no handler could carry out; ``replay_at`` set: to be sent again."""

    __tablename__ = "dead_letters"
    __table_args__ = TABLE_ARGS

    id: Mapped[int] = mapped_column(Serial, primary_key=True, autoincrement=True)
    at: Mapped[datetime]
    queue: Mapped[str] = mapped_column(Name)
    reason: Mapped[str] = mapped_column(LongText)
    body: Mapped[str] = mapped_column(LongText)
    replay_at: Mapped[datetime | None] = mapped_column(index=True)
