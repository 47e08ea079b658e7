"""Projects, their users and their keys."""

from datetime import datetime

from sqlalchemy import ForeignKey, Integer, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from controller.db.base import TABLE_ARGS, Account, Base, Id, LongText, Name


class Cloud(Base):
    """The one row of the cloud itself; a transaction that has to run alone locks it by an UPDATE.

    ``oldest_release``: no service of an older one runs here any more, nor may it start.
    """

    __tablename__ = "cloud"
    __table_args__ = TABLE_ARGS

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    cloud_id: Mapped[str] = mapped_column(String(8))
    network_epoch: Mapped[int] = mapped_column(Integer, default=0)
    oldest_release: Mapped[str] = mapped_column(String(32), default="0.1.0", server_default="0.1.0")
    created_at: Mapped[datetime]


class Project(Base):
    """An account: owns resources, has quotas. Used counters change only with the rows that they count."""

    __tablename__ = "projects"
    __table_args__ = TABLE_ARGS

    id: Mapped[str] = mapped_column(Account, primary_key=True)
    name: Mapped[str] = mapped_column(Name, unique=True)
    enabled: Mapped[bool] = mapped_column(default=True)
    quota_instances: Mapped[int]
    quota_vcpus: Mapped[int]
    quota_memory_mib: Mapped[int]
    used_instances: Mapped[int] = mapped_column(default=0)
    used_vcpus: Mapped[int] = mapped_column(default=0)
    used_memory_mib: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]


class User(Base):
    """A person or a program; the password is kept as an Argon2id hash, the REST token as a SHA-256."""

    __tablename__ = "users"
    __table_args__ = TABLE_ARGS

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(Name, unique=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    enabled: Mapped[bool] = mapped_column(default=True)
    password_hash: Mapped[str] = mapped_column(String(255), default="")
    token_sha256: Mapped[str | None] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime]


class AccessKey(Base):
    """A key pair for signing requests; the secret is encrypted with the cloud's key."""

    __tablename__ = "access_keys"
    __table_args__ = TABLE_ARGS

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), index=True)
    secret_encrypted: Mapped[str] = mapped_column(String(512))
    enabled: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime]


class KeyPair(Base):
    """An SSH public key of a project."""

    __tablename__ = "key_pairs"
    __table_args__ = (UniqueConstraint("project_id", "name"), TABLE_ARGS)

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str] = mapped_column(Name)
    type: Mapped[str] = mapped_column(String(16))
    fingerprint: Mapped[str] = mapped_column(String(128))
    public_key: Mapped[str] = mapped_column(LongText)
    created_at: Mapped[datetime]


class Tag(Base):
    """A key and a value on any resource."""

    __tablename__ = "tags"
    __table_args__ = TABLE_ARGS

    resource_id: Mapped[str] = mapped_column(Id, primary_key=True)
    key: Mapped[str] = mapped_column(String(128), primary_key=True)
    value: Mapped[str] = mapped_column(String(256))
    resource_type: Mapped[str] = mapped_column(String(32))
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
