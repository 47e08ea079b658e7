"""What an agent was asked for and the results, on disk before it is acknowledged.

One SQLite file for a process, shared by all the hosts it simulates and by all its threads.
"""

import sqlite3
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compute_agent.journal import file
from compute_agent.journal.outdated import newest, sort
from controller.domain.errors import Unavailable
from controller.domain.guests import Desired, Power
from controller.domain.messages import UNKNOWN_GENERATION, GuestReport, GuestSpec, OutdatedRequest
from controller.domain.states import Event
from controller.domain.wire import decode_guest, encode_guest


@dataclass(frozen=True)
class PendingRequest:
    """A request that is still to be carried out; ``built``: the guest was made before."""

    spec: GuestSpec
    built: bool


class Journal:
    """Requests and results of many hosts.

    ``record`` is durable when it returns. Results are not forced to the disk: one that a power failure takes
    is found again by carrying the request out again.

    Every method may raise ``Unavailable``: the disk is full or broken; nothing was changed.
    """

    def __init__(self, path: Path) -> None:
        """Open or make the file; a corrupt one is moved aside, ``adopt`` then fills the new one."""
        self._lock = threading.Lock()
        self._db = file.open_or_begin(path)
        (self._position,) = self._db.execute("SELECT coalesce(max(position), 0) FROM guests").fetchone()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def record(self, host: str, guests: Sequence[GuestSpec], expires_at: str = "") -> list[OutdatedRequest]:
        """Record requests, all or none, durably; returns those that are outdated.

        Older generations are ignored. The generation that is known already is no new work, unless it was dropped with
        an older epoch; if it has been carried out, its result is reported again. One that is known as another request
        is outdated: the sender's database was restored from a backup, and has counted these generations twice.
        """
        with self._write(durable=True) as db:
            before = db.total_changes
            rows = [self._row(host, spec, expires_at) for spec in guests]
            db.executemany(
                """INSERT INTO guests (host, instance, generation, spec, position, expires_at, pending)
                VALUES (?, ?, ?, ?, ?, ?, 1)
                ON CONFLICT (host, instance) DO UPDATE SET
                    generation = excluded.generation, spec = excluded.spec, position = excluded.position,
                    pending = 1, reported = 1, gone_at = NULL, waits = 0, expires_at = excluded.expires_at
                WHERE excluded.generation > guests.generation OR (excluded.generation = guests.generation
                    AND NOT guests.pending AND guests.done_generation < guests.generation)""",
                rows,
            )
            if db.total_changes - before == len(rows):
                return []
            outdated, known = sort(guests, newest(db, host, guests))
            db.executemany(
                "UPDATE guests SET reported = 0 WHERE host = ? AND instance = ? AND generation = ?"
                " AND NOT pending AND event IS NOT NULL",
                [(host, spec.instance_id, spec.generation) for spec in known],
            )
        return outdated

    def pending(self, host: str) -> list[GuestSpec]:
        """The desired states that are still to be reached, first come first."""
        rows = self._read("SELECT spec FROM guests WHERE host = ? AND pending AND NOT waits ORDER BY position", host)
        return [decode_guest(spec) for (spec,) in rows]

    def pending_request(self, host: str, instance_id: str) -> PendingRequest | None:
        """The newest request for a guest; None if it has been carried out."""
        for spec, built in self._read(
            "SELECT spec, built FROM guests WHERE host = ? AND instance = ? AND pending AND NOT waits",
            host,
            instance_id,
        ):
            return PendingRequest(decode_guest(spec), bool(built))
        return None

    def finish(self, host: str, instance_id: str, generation: int, event: Event, reason: str = "") -> bool:
        """Record the result of a request, to be reported; False if a newer request has come meanwhile."""
        gone = event is Event.GONE
        with self._write() as db:
            done = db.execute(
                """UPDATE guests SET done_generation = ?, event = ?, reason = ?, cause = '',
                    built = (built OR ?) AND NOT ?,
                    pending = pending AND generation <> ?, reported = CASE generation WHEN ? THEN 0 ELSE 1 END
                WHERE host = ? AND instance = ? AND generation >= ?""",
                (
                    *(generation, event.value, reason, event is Event.RUNNING, gone),
                    *(generation, generation, host, instance_id, generation),
                ),
            )
            if not done.rowcount:
                return False
            (newest,) = db.execute(
                "SELECT generation FROM guests WHERE host = ? AND instance = ?", (host, instance_id)
            ).fetchone()
        return bool(newest == generation)

    def unreported(self, host: str, limit: int = 1000) -> list[GuestReport]:
        """Results that the controller does not know yet."""
        return [
            GuestReport(instance, generation, Event(event), reason, cause)
            for instance, generation, event, reason, cause in self._read(
                "SELECT instance, done_generation, event, reason, cause FROM guests"
                " WHERE host = ? AND NOT reported AND event IS NOT NULL LIMIT ?",
                host,
                limit,
            )
        ]

    def mark_reported(self, host: str, reports: Iterable[GuestReport], now: float) -> None:
        """The bus has these; a result that has changed since stays unreported.

        A guest that is GONE becomes a tombstone, so that a late command of an older generation is ignored.
        """
        with self._write() as db:
            db.executemany(
                """UPDATE guests SET reported = 1,
                    gone_at = CASE WHEN event = 'GONE' AND NOT pending THEN ? END,
                    spec = CASE WHEN event = 'GONE' AND NOT pending THEN NULL ELSE spec END
                WHERE host = ? AND instance = ? AND done_generation = ? AND event = ? AND reason = ?""",
                [(now, host, r.instance_id, r.generation, r.event.value, r.reason) for r in reports],
            )

    def forget(self, gone_before: float) -> None:
        """Remove the tombstones of guests that were reported GONE before that time."""
        with self._write() as db:
            db.execute("DELETE FROM guests WHERE gone_at < ? AND reported", (gone_before,))

    def settled(self, host: str) -> dict[str, tuple[int, Event]]:
        """Guests that exist and whose newest request was carried out: its generation and its result."""
        return {
            instance: (generation, Event(event))
            for instance, generation, event in self._read(
                "SELECT instance, done_generation, event FROM guests"
                " WHERE host = ? AND NOT pending AND built AND event IS NOT NULL",
                host,
            )
        }

    def observe(
        self, host: str, instance_id: str, was: tuple[int, Event], event: Event, reason: str, cause: str = ""
    ) -> bool:
        """Keep what a guest did by itself, unless something has happened since ``was`` was read."""
        with self._write() as db:
            done = db.execute(
                """UPDATE guests SET event = ?, reason = ?, cause = ?, reported = 0
                WHERE host = ? AND instance = ? AND NOT pending AND done_generation = ? AND event = ?""",
                (event.value, reason, cause, host, instance_id, was[0], was[1].value),
            )
        return done.rowcount == 1

    def generations(self, host: str) -> dict[str, int]:
        """The newest generation that was carried out, of each guest."""
        return dict(self._read("SELECT instance, done_generation FROM guests WHERE host = ?", host))

    def adopt(self, host: str, guests: Mapping[str, Power]) -> int:
        """Take in guests that are there and of which nothing is known; returns how many."""
        with self._write() as db:
            before = db.total_changes
            db.executemany(
                "INSERT OR IGNORE INTO guests (host, instance, generation, position, pending, built, event)"
                " VALUES (?, ?, ?, 0, 0, 1, ?)",
                [(host, instance, UNKNOWN_GENERATION, power.value) for instance, power in guests.items()],
            )
            return db.total_changes - before

    def booted(self, host: str, boot_id: str) -> int:
        """After another boot of the host: guests that are to run are work again, and all work waits for ``accept``;
        returns how many guests wait."""
        with self._write(durable=True) as db:
            known = db.execute("SELECT boot_id FROM boots WHERE host = ?", (host,)).fetchone()
            if known == (boot_id,):
                return 0
            db.execute("INSERT OR REPLACE INTO boots VALUES (?, ?)", (host, boot_id))
            if known is None:
                return 0
            again = db.execute(
                "UPDATE guests SET pending = 1, waits = 1 WHERE host = ? AND (pending"
                " OR (built AND event = 'RUNNING' AND spec IS NOT NULL AND done_generation = generation))",
                (host,),
            ).rowcount
            # The last request was dropped with an older epoch, so it is work only if that guest was to run, too.
            dropped = db.execute(
                "SELECT instance, spec FROM guests WHERE host = ? AND NOT pending"
                " AND built AND event = 'RUNNING' AND spec IS NOT NULL AND done_generation < generation",
                (host,),
            ).fetchall()
            to_run = [(host, i) for i, spec in dropped if decode_guest(spec).desired is Desired.RUNNING]
            db.executemany("UPDATE guests SET pending = 1, waits = 1 WHERE host = ? AND instance = ?", to_run)
            return again + len(to_run)

    def accepted(self, host: str) -> tuple[int, str]:
        """The epoch that this host obeys and the boot that a controller has answered for; 0 and nothing at first."""
        for epoch, boot_id in self._read("SELECT epoch, boot_id FROM acceptances WHERE host = ?", host):
            return epoch, boot_id
        return 0, ""

    def accept(self, host: str, epoch: int, boot_id: str, runs: Collection[str]) -> None:
        """A controller has answered for this boot, durably: what waited goes on, or is dropped.

        Of what waits, guests are started that ``runs`` names. With another epoch than before, all else that is pending
        was requested in an older one and is dropped: the controller requests it again if it still holds.
        """
        with self._write(durable=True) as db:
            known = db.execute("SELECT epoch FROM acceptances WHERE host = ?", (host,)).fetchone()
            renewed = known is not None and known[0] != epoch
            if renewed:
                db.execute("UPDATE guests SET pending = 0 WHERE host = ? AND pending AND NOT waits", (host,))
            waiting = db.execute("SELECT instance, spec FROM guests WHERE host = ? AND waits", (host,)).fetchall()
            dropped = [
                (host, instance)
                for instance, spec in waiting
                if (instance not in runs if decode_guest(spec).desired is Desired.RUNNING else renewed)
            ]
            db.executemany("UPDATE guests SET pending = 0 WHERE host = ? AND instance = ?", dropped)
            db.execute("UPDATE guests SET waits = 0 WHERE host = ? AND waits", (host,))
            db.execute(
                "INSERT INTO acceptances (host, epoch, boot_id) VALUES (?, ?, ?)"
                " ON CONFLICT (host) DO UPDATE SET epoch = excluded.epoch, boot_id = excluded.boot_id",
                (host, epoch, boot_id),
            )

    def old_senders(self, host: str) -> bool:
        """Whether commands of release 0.1, which name no epoch, are still to be carried out."""
        return (1,) in self._read("SELECT old_senders FROM acceptances WHERE host = ?", host)

    def set_old_senders(self, host: str, known: bool) -> None:
        """What the last answer said of that, for the agent's next start."""
        with self._write(durable=True) as db:
            db.execute("UPDATE acceptances SET old_senders = ? WHERE host = ?", (int(known), host))

    def hold(self, host: str, instance_ids: Iterable[str]) -> None:
        """Have this work wait for ``accept``."""
        with self._write(durable=True) as db:
            db.executemany(
                "UPDATE guests SET waits = 1 WHERE host = ? AND instance = ? AND pending",
                [(host, i) for i in instance_ids],
            )

    def release(self, host: str) -> int:
        """What waits goes on without an answer; returns how many guests that are."""
        with self._write(durable=True) as db:
            return db.execute("UPDATE guests SET waits = 0 WHERE host = ? AND waits", (host,)).rowcount

    def waiting(self, host: str) -> int:
        """How many guests wait for an answer."""
        ((count,),) = self._read("SELECT count(*) FROM guests WHERE host = ? AND pending AND waits", host)
        return int(count)

    def unfinished(self, host: str) -> set[str]:
        """The guests that are not yet as they are desired, waiting or not."""
        return {i for (i,) in self._read("SELECT instance FROM guests WHERE host = ? AND pending", host)}

    def expiries(self, host: str) -> dict[str, str]:
        """Until when each pending request may be started, if the request says so."""
        return dict(
            self._read("SELECT instance, expires_at FROM guests WHERE host = ? AND pending AND expires_at <> ''", host)
        )

    def _row(self, host: str, spec: GuestSpec, expires_at: str) -> tuple[str, str, int, str, int, str]:
        self._position += 1
        return host, spec.instance_id, spec.generation, encode_guest(spec), self._position, expires_at

    def _read(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._db.execute(statement, values).fetchall()
            except sqlite3.DatabaseError as error:
                raise Unavailable(what="The agent's journal", reason=str(error)) from error

    @contextmanager
    def _write(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """One transaction; a durable one is on the disk when it has ended."""
        with self._lock:
            try:
                self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                    self._db.execute("COMMIT")
                finally:
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
            except sqlite3.DatabaseError as error:
                raise Unavailable(what="The agent's journal", reason=str(error)) from error
