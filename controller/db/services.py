"""The services that run."""

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from controller.db.base import TABLE_ARGS, Base, LongText, Name


class Service(Base):
    """One service of one process: written when it starts, renewed while it runs, removed when it stops.

    A service that was killed leaves its row behind: only one that was renewed a short while ago runs. ``speaks`` is the
    newest version of the messages that it can read. ``unread``: the kinds of message that it could not read.
    """

    __tablename__ = "services"
    __table_args__ = TABLE_ARGS

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    machine: Mapped[str] = mapped_column(Name)
    pid: Mapped[int]
    release: Mapped[str] = mapped_column(String(32))
    speaks: Mapped[int]
    unread: Mapped[str] = mapped_column(LongText, default="")
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]
