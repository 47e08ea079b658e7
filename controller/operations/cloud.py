"""What doors, workers and commands hold in their hands: settings, database, bus, clock and ids, passed in."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

import structlog
from sqlalchemy.orm import Session

from controller.bus.sender import Sender
from controller.conf.settings import Settings
from controller.db.database import Database
from controller.domain.clock import Clock, system_clock
from controller.domain.ids import IdSource
from controller.domain.messages import Message
from controller.health import Health
from controller.operations.services.receivers import readable

T = TypeVar("T")
log = structlog.get_logger(__name__)

# A transaction that takes longer is logged with its name: others wait for the rows that it has locked.
SLOW_S = 1.0


@dataclass
class Transaction:
    """One transaction under way. What is put into ``outbox`` leaves after the commit, and only then."""

    session: Session
    now: datetime
    ids: IdSource
    settings: Settings
    outbox: list[Message] = field(default_factory=list)


@dataclass(frozen=True)
class Cloud:
    """One process's cloud. ``write`` and ``read`` run an operation: a function of a Transaction.

    ``server_clock`` is what the database's server takes for the time; None: it is asked. ``health`` is the process's.
    """

    settings: Settings
    database: Database
    bus: Sender
    clock: Clock = system_clock
    ids: IdSource = field(default_factory=IdSource.system)
    server_clock: Clock | None = None
    health: Health = field(default_factory=Health)

    @classmethod
    def connect(cls, settings: Settings, health: Health | None = None) -> "Cloud":
        """A cloud on the real engines that the settings name; nothing is opened before it is used.

        ``health`` is of the process that it is part of.
        """
        from controller.bus.bus import Bus  # half of the time that a command takes to start

        return cls(settings, Database(settings), Bus(settings), health=health or Health())

    def write(self, operation: Callable[[Transaction], T]) -> T:
        """Run an operation in one transaction, then ring those of its doorbells that can be read (``readable``).

        One that takes longer than ``SLOW_S`` is logged. See ``Database.write`` for what it raises.
        """
        sent: list[Message] = []
        begin = cpu = 0.0

        def work(session: Session) -> T:
            nonlocal begin, cpu
            begin, cpu = time.monotonic(), time.thread_time()
            tx = Transaction(session, self.clock(), self.ids, self.settings)
            session.info["now"] = tx.now
            result = operation(tx)
            session.flush()
            sent[:] = readable(session, tx.outbox, tx.now)
            return result

        result = self.database.write(work)
        if (took_s := time.monotonic() - begin) > SLOW_S:
            name = getattr(operation, "__qualname__", type(operation).__name__)
            cpu_s = round(time.thread_time() - cpu, 2)
            log.warning("a transaction took long", operation=name, seconds=round(took_s, 2), cpu_seconds=cpu_s)
        self.bus.notify(sent)
        return result

    def read(self, operation: Callable[[Transaction], T]) -> T:
        """Run an operation on a snapshot; whatever it writes or rings is dropped."""
        return self.database.read(lambda s: operation(Transaction(s, self.clock(), self.ids, self.settings)))

    def ask(self, operation: Callable[[Transaction], T]) -> T:
        """``read`` for an operation that does nothing but SELECT; see ``Database.ask``."""
        return self.database.ask(lambda s: operation(Transaction(s, self.clock(), self.ids, self.settings)))

    def clock_error_s(self) -> float:
        """By how many seconds our clock is ahead of the database server's, or behind it (negative), however long the
        question took; 0 where it is no more than ``[controller] clock_skew_warn_s``.

        Nothing is to be ended or removed because its time is over while they differ, whichever is wrong: better too
        late than too early.

        Raises:
            DatabaseUnavailable
        """
        before = self.clock()
        theirs = self.server_clock() if self.server_clock else self.database.server_time()
        after = self.clock()
        if theirs is None or before <= theirs <= after:
            return 0.0
        error_s = ((before if theirs < before else after) - theirs).total_seconds()
        return error_s if abs(error_s) > self.settings.controller.clock_skew_warn_s else 0.0
