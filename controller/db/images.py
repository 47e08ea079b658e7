"""Images and instance types: what an instance is made of."""

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from controller.db.base import TABLE_ARGS, Base, Id, LongText, Name


class Image(Base):
    """An image; its file lies in the store under its checksum. ``hypervisor`` empty: any."""

    __tablename__ = "images"
    __table_args__ = TABLE_ARGS

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    name: Mapped[str] = mapped_column(Name)
    description: Mapped[str] = mapped_column(LongText, default="")
    public: Mapped[bool] = mapped_column(default=False)
    state: Mapped[str] = mapped_column(String(16))
    format: Mapped[str] = mapped_column(String(16))
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    virtual_size_bytes: Mapped[int] = mapped_column(BigInteger)
    architecture: Mapped[str] = mapped_column(String(16))
    hypervisor: Mapped[str] = mapped_column(String(16), default="")
    min_memory_mib: Mapped[int] = mapped_column(default=0)
    min_disk_gib: Mapped[int] = mapped_column(default=0)
    required_labels: Mapped[str] = mapped_column(String(1024), default="", server_default="")
    created_at: Mapped[datetime]
    deregistered_at: Mapped[datetime | None]


class InstanceType(Base):
    """A flavor: what an instance of this type is given."""

    __tablename__ = "instance_types"
    __table_args__ = TABLE_ARGS

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    vcpus: Mapped[int]
    memory_mib: Mapped[int]
    disk_gib: Mapped[int]
    required_labels: Mapped[str] = mapped_column(String(1024), default="", server_default="")
    enabled: Mapped[bool] = mapped_column(default=True)
