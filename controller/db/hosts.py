"""Hosts, and the claims on them."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, String, event
from sqlalchemy.orm import Mapped, mapped_column, object_session

from controller.db.base import TABLE_ARGS, Base, Id, LongText, Name


class Host(Base):
    """A host: what its agent reported, what may be claimed of it (``*_limit``), what is claimed (``*_used``).

    ``*_used`` change only in the transaction of the claim; their sum over the claims is audited. ``labels``,
    ``disk_backends``, ``images`` (checksums) and ``allowed_macs`` are comma-separated; ``allowed_macs`` is NULL where
    no probe has reported. ``drift`` says how the host differs from what was registered (``domain.drift``).
    ``guest_overhead_mib`` is the memory that each guest takes beside its own.
    ``epoch`` is raised by each registration and force-removal (``RemovedHost`` remembers it); an agent carries out only
    commands of its own epoch. ``remarks`` are the agent's, for the operator.
    ``heartbeat_sequence`` is the number of the last heartbeat taken, 0 where it had none. ``release`` is its agent's,
    empty where that is 0.1, and ``speaks`` the newest version of the messages that this agent can read.
    """

    __tablename__ = "hosts"
    __table_args__ = (
        CheckConstraint("vcpus_used >= 0 AND memory_used_mib >= 0 AND disk_used_gib >= 0", name="used"),
        TABLE_ARGS,
    )

    id: Mapped[str] = mapped_column(Name, primary_key=True)
    mode: Mapped[str] = mapped_column(String(16))
    up: Mapped[bool]
    hypervisor: Mapped[str] = mapped_column(String(16))
    architecture: Mapped[str] = mapped_column(String(16))
    zone: Mapped[str] = mapped_column(String(64))
    labels: Mapped[str] = mapped_column(LongText, default="")
    boot_id: Mapped[str] = mapped_column(String(64), default="")
    disk_backends: Mapped[str] = mapped_column(String(255), default="", server_default="")
    images: Mapped[str | None] = mapped_column(LongText)
    allowed_macs: Mapped[str | None] = mapped_column(LongText)
    drift: Mapped[str] = mapped_column(String(1024), default="", server_default="")
    vcpus: Mapped[int]
    memory_mib: Mapped[int]
    disk_gib: Mapped[int]
    vcpus_limit: Mapped[int]
    memory_limit_mib: Mapped[int]
    disk_limit_gib: Mapped[int]
    guest_overhead_mib: Mapped[int] = mapped_column(default=0, server_default="0")
    vcpus_used: Mapped[int] = mapped_column(default=0)
    memory_used_mib: Mapped[int] = mapped_column(default=0)
    disk_used_gib: Mapped[int] = mapped_column(default=0)
    last_seen_at: Mapped[datetime]
    heartbeat_sequence: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    epoch: Mapped[int] = mapped_column(BigInteger, default=1, server_default="1")
    remarks: Mapped[str] = mapped_column(String(1024), default="", server_default="")
    release: Mapped[str] = mapped_column(String(32), default="", server_default="")
    speaks: Mapped[int] = mapped_column(default=1, server_default="1")
    # When anything that placement reads was changed last; a heartbeat without news does not change it.
    changed_at: Mapped[datetime | None]
    created_at: Mapped[datetime]


@event.listens_for(Host, "before_insert")
@event.listens_for(Host, "before_update")
def _note_change(_mapper: object, _connection: object, host: Host) -> None:
    """Date a change that is written through the object; a bulk statement sets ``changed_at`` itself."""
    session = object_session(host)
    if session is not None and session.is_modified(host):
        host.changed_at = session.info.get("now", host.changed_at)


class RemovedHost(Base):
    """A host that was removed: its newest epoch, so that none is ever used twice.

    ``fenced_at``: when an operator stated that it is dead. ``last_seen_at``: when its agent sent a heartbeat all the
    same, with ``remarks``. ``queue_removed_at``: since when the broker holds no command for it.
    """

    __tablename__ = "removed_hosts"
    __table_args__ = TABLE_ARGS

    id: Mapped[str] = mapped_column(Name, primary_key=True)
    epoch: Mapped[int] = mapped_column(BigInteger)
    removed_at: Mapped[datetime]
    fenced_at: Mapped[datetime | None]
    last_seen_at: Mapped[datetime | None]
    queue_removed_at: Mapped[datetime | None]
    remarks: Mapped[str] = mapped_column(String(1024), default="", server_default="")


class StrayGuest(Base):
    """A guest that a host shows, while its instance is on another host, or on none.

    ``times_seen`` counts successive heartbeats. ``owner_host`` is the instance's host, ``owner_seen_at`` when that host
    last showed the guest running, ``removal_sent_at`` when its removal was last sent. ``reason``: why it is there
    still. The row is deleted when the host does not show the guest any more.
    """

    __tablename__ = "stray_guests"
    __table_args__ = TABLE_ARGS

    host_id: Mapped[str] = mapped_column(Name, primary_key=True)
    instance_id: Mapped[str] = mapped_column(Id, primary_key=True)
    power: Mapped[str] = mapped_column(String(16))
    generation: Mapped[int] = mapped_column(BigInteger)
    times_seen: Mapped[int]
    first_seen_at: Mapped[datetime]
    removal_sent_at: Mapped[datetime | None] = mapped_column(index=True)
    owner_host: Mapped[str | None] = mapped_column(Name, index=True)
    owner_seen_at: Mapped[datetime | None]
    reason: Mapped[str] = mapped_column(String(255), default="", server_default="")


class Claim(Base):
    """A share of a host held by an instance, until the host reports the guest as GONE.

    ``memory_mib`` is all of the claimed memory: the guest's own and ``overhead_mib``.
    """

    __tablename__ = "claims"
    __table_args__ = TABLE_ARGS

    instance_id: Mapped[str] = mapped_column(Id, ForeignKey("instances.id"), primary_key=True)
    host_id: Mapped[str] = mapped_column(Name, ForeignKey("hosts.id"), primary_key=True, index=True)
    vcpus: Mapped[int]
    memory_mib: Mapped[int]
    overhead_mib: Mapped[int] = mapped_column(default=0, server_default="0")
    disk_gib: Mapped[int]


class JoinToken(Base):
    """Lets hosts whose name matches ``name_pattern`` (shell style) register themselves, until it expires or
    ``uses_left`` is 0. Only its hash is kept."""

    __tablename__ = "join_tokens"
    __table_args__ = TABLE_ARGS

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    token_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    name_pattern: Mapped[str] = mapped_column(Name, default="*")
    uses_left: Mapped[int]
    expires_at: Mapped[datetime]
    created_at: Mapped[datetime]
