"""The controller as a service: applies agents' events, sweeps, keeps dead letters. Several may run side by side."""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import ClassVar

import structlog

from controller.bus.batch_consumer import BatchConsumer
from controller.bus.connection import BROKER_ERRORS
from controller.bus.dead_letter_consumer import DeadLetterConsumer
from controller.bus.removal import remove_host_queues, remove_unused
from controller.conf.settings import Settings
from controller.domain.agent_messages import check
from controller.domain.errors import BusUnavailable, PoisonMessage, Unavailable
from controller.domain.messages import EVENTS, HEARTBEATS, GuestsChanged, HostReported, Message
from controller.domain.release import OLDEST_VERSION
from controller.domain.wire import decode
from controller.needs import Needs
from controller.operations import dead_letters
from controller.operations.cloud import Cloud
from controller.operations.hosts import fencing, lost_hosts
from controller.operations.hosts.heartbeats import apply_heartbeats
from controller.operations.hosts.lateness import newest_of
from controller.operations.hosts.unchanged_heartbeats import UnchangedHeartbeats
from controller.operations.images import pruning
from controller.operations.instances import sweeps
from controller.operations.instances.locking import in_portions
from controller.operations.instances.reports import apply_reports
from controller.operations.services import services
from controller.workers.periodic import Periodic
from controller.workers.watched_clock import WatchedClock

log = structlog.get_logger(__name__)

# Heartbeats are in no hurry: a few hundred in one transaction cost little more than ten.
_HEARTBEATS_AT_ONCE, _HEARTBEAT_LINGER_S = 1000, 0.5
# What one transaction changes at most, so that nothing waits for it for long.
_REPORTS_AT_ONCE = 500
# With so many reports from one sweep to the next, hosts are at work on their commands.
_BUSY = 200
_LEAST_NOTIFIED = 100
_STOP_S = 10
_AWAY: tuple[type[BaseException], ...] = (Unavailable, *BROKER_ERRORS)
_HOSTS_IN_A_LINE = 20
_PURGE_EVERY_S = 60
_QUEUES_EVERY_S = 10
_PRUNE_EVERY = 10  # purges


class ControllerService:
    """Applies agents' events, and sweeps: notifies again, expires, marks hosts down, replays dead letters, purges."""

    name: ClassVar[str] = "controller"
    needs_database: ClassVar[bool] = True

    @staticmethod
    def needs(_: Settings) -> Needs:
        """Threads for reports, heartbeats and dead letters, which consume, and for sweep, queues and purge."""
        return Needs(database_threads=6, consumers=3)

    def __init__(self, cloud: Cloud, can_hear: Callable[[], bool] | None = None) -> None:
        """``can_hear`` says whether a host's silence means anything: as a rule, what the consumer of events knows."""
        self._clock = WatchedClock(cloud)
        self._cloud = replace(cloud, clock=self._clock)
        self._can_hear = can_hear or self._has_listened
        self._events = BatchConsumer(cloud.settings, [EVENTS], self.handle, name=EVENTS, check=check)
        # A queue and a thread of their own: reports by the thousand delay no heartbeat.
        self._heartbeats = BatchConsumer(
            cloud.settings,
            [HEARTBEATS],
            self.handle,
            name=HEARTBEATS,
            batch=_HEARTBEATS_AT_ONCE,
            linger_s=_HEARTBEAT_LINGER_S,
            check=check,
        )
        self._consumers = (self._events, self._heartbeats, DeadLetterConsumer(cloud.settings, self.record_dead_letter))
        self._quiet = UnchangedHeartbeats()
        self._reported = self._swept = 0  # what was reported of instances so far, and until the last sweep
        self._more_wait = False  # whether the last sweep notified of as many as it was allowed to
        self._deaf_at = (
            -math.inf
        )  # when hosts could not be heard, or heartbeats not be written, last; by the monotonic clock
        self._purges = itertools.count()
        self._swept_at: datetime | None = None  # when the last sweep ended, by the cloud's clock
        every_s = cloud.settings.controller.sweep_s
        self._sweeps = [
            Periodic("sweep", every_s, self.sweep),
            Periodic("queues", _QUEUES_EVERY_S, self.remove_queues),
            Periodic("purge", _PURGE_EVERY_S, self.purge),
        ]

    def handle(self, messages: Sequence[Message]) -> None:
        """Apply the events of agents that have come together, in transactions of bounded size.

        Raises:
            PoisonMessage: one is not an event.
        """
        reports = [m for m in messages if isinstance(m, GuestsChanged)]
        alive = [m for m in messages if isinstance(m, HostReported)]
        strangers = [m.KIND for m in messages if not isinstance(m, GuestsChanged | HostReported)]
        if strangers:
            raise PoisonMessage(reason=f"{strangers[0]} is not an event")
        with self._noting_refusals():
            for some in in_portions(reports, lambda m: len(m.reports) + len(m.outdated), _REPORTS_AT_ONCE):
                self._cloud.write(lambda tx, s=some: apply_reports(tx, s))  # type: ignore[misc]
                self._reported += sum(len(m.reports) for m in some)
            for beats in in_portions(self._take_quiet(alive), lambda m: 1 + len(m.guests), _REPORTS_AT_ONCE):
                at_rest = self._cloud.write(lambda tx, b=beats: apply_heartbeats(tx, b))  # type: ignore[misc]
                for host, rows in at_rest.items():
                    self._quiet.remember(newest_of(beats)[host], rows)

    def _take_quiet(self, alive: Sequence[HostReported]) -> Sequence[HostReported]:
        """Take the unchanged heartbeats; answers with the others."""
        newest = newest_of(alive)
        expected = [m for m in newest.values() if self._quiet.expects(m)]
        if not expected:
            return alive
        others = {m.host for m in self._cloud.write(lambda tx: self._quiet.take(tx, expected))}
        taken = {m.host for m in expected} - others
        return [m for m in alive if m.host not in taken]

    def record_dead_letter(self, body: bytes, about: dict[str, str]) -> None:
        """Write a dead letter to the database, where the operator finds it."""
        self._cloud.write(lambda tx: dead_letters.record_dead_letter(tx, body, about["queue"], about["reason"]))

    def sweep(self) -> None:
        """One round: what is overdue, what waits for a doorbell, which hosts went silent, what is to be replayed.

        While our clock and the database's differ nothing ends because of its time; a doorbell too many does no harm.
        """
        cloud = self._cloud
        with self._noting_refusals():
            if self._clock.compare() and (expired := cloud.write(sweeps.expire)):
                log.warning("instances outstayed their deadline", count=expired)
            self._notify()
            self._mark_lost()
            self._replay()
        self._swept_at = cloud.clock()

    def _notify(self) -> None:
        """Notify again; if hosts do not keep up, of no more instances than they answer: a second command for what still
        waits in their queues would only make these longer."""
        reported, self._swept = self._reported - self._swept, self._reported
        most = min(max(2 * reported, _LEAST_NOTIFIED), sweeps.BATCH) if self._more_wait else sweeps.BATCH
        if notified := self._cloud.write(lambda tx: sweeps.notify(tx, busy=reported >= _BUSY, most=most)):
            log.info("notified again", count=notified)
        self._more_wait = notified >= most

    def remove_queues(self) -> None:
        """One round: the queues of removed hosts, with the commands in them: no agent may carry them out any more."""
        for host in self._cloud.read(fencing.with_queues):
            try:
                remove_host_queues(self._cloud.settings, host)
            except BusUnavailable as error:
                log.warning("a removed host's queue is removed later", host=host, reason=str(error))
                return
            self._cloud.write(lambda tx, h=host: fencing.queue_removed(tx, h))  # type: ignore[misc]
            log.info("the queues of a removed host are removed", host=host)

    def purge(self) -> None:
        """One round: the rows of what was deleted long ago; now and then what hosts have cached and nothing needs."""
        if not self._clock.agrees_since(0):
            return
        self._cloud.write(sweeps.purge)
        self._cloud.write(services.forget)
        if next(self._purges) % _PRUNE_EVERY == 0:
            after_s = self._cloud.settings.images.prune_after_s
            self._cloud.write(lambda tx: pruning.prune_caches(tx, after_s=after_s))

    def start(self) -> None:
        """Begin; returns at once."""
        for consumer in self._consumers:
            consumer.start()
        for sweep in self._sweeps:
            sweep.start()

    def stop(self) -> None:
        """End when the current work is done."""
        for consumer in self._consumers:
            consumer.stop()
        for sweep in self._sweeps:
            sweep.stop(_STOP_S)
        for consumer in self._consumers:
            consumer.join(_STOP_S)
        self._leave_heartbeats()

    def _leave_heartbeats(self) -> None:
        """Where controllers of 0.1 may go on alone, agents are to send heartbeats to the queue that these consume: they
        do as long as there is none of our kind."""
        if self._cloud.settings.embedded_bus:
            return
        try:
            if self._cloud.read(services.services_speak) == OLDEST_VERSION:
                remove_unused(self._cloud.settings, HEARTBEATS)
        except _AWAY as error:
            log.warning("the queue of heartbeats stays", reason=str(error))

    def problem(self) -> str:
        """Why agents are not heard, or nothing is swept."""
        consumers = [c.problem() for c in self._consumers]
        return next(filter(None, [*consumers, *(s.problem() for s in self._sweeps)]), "")

    def destroy(self) -> None:
        """The controller leaves nothing on its machine but the database."""

    def _mark_lost(self) -> None:
        """Mark silent hosts down, part by part, as long as silence means something."""
        lost: set[str] = set()
        while self._silence_counts() and (some := self._cloud.write(lost_hosts.mark_lost)):
            lost.update(some)
        if lost:
            log.warning("hosts are down", count=len(lost), hosts=sorted(lost)[:_HOSTS_IN_A_LINE])

    def _silence_counts(self) -> bool:
        """Whether a host has been silent for as long as its row says: this controller has listened, and the clocks have
        agreed for so long."""
        return self._can_hear() and self._clock.agrees_since(self._cloud.settings.controller.host_down_after_s)

    def _has_listened(self) -> bool:
        """Whether this controller has listened for longer than a host may be silent: it could write what it heard, it
        had read all that came, and its process was not stopped meanwhile."""
        down_after_s = self._cloud.settings.controller.host_down_after_s
        if self._swept_at and abs(self._cloud.clock() - self._swept_at) > timedelta(seconds=down_after_s / 2):
            self._deaf_at = time.monotonic()
        deaf_at = self._deaf_at
        for consumer in (self._events, self._heartbeats):
            since = consumer.listening_since
            if since is None:
                return False
            deaf_at = max(deaf_at, since, consumer.behind_at)
        return time.monotonic() - deaf_at > down_after_s

    @contextmanager
    def _noting_refusals(self) -> Iterator[None]:
        try:
            yield
        except Unavailable:
            self._deaf_at = time.monotonic()
            raise

    def _replay(self) -> None:
        for letter in self._cloud.read(dead_letters.to_replay):
            try:
                self._cloud.bus.send(decode(letter.body))
            except BusUnavailable:
                return
            except (PoisonMessage, TypeError) as error:  # an answer is for no queue
                log.warning("a dead letter cannot be sent again", id=letter.id, reason=str(error))
                self._cloud.write(lambda tx, i=letter.id: dead_letters.stop_replaying(tx, i))  # type: ignore[misc]
                continue
            self._cloud.write(lambda tx, i=letter.id: dead_letters.discard(tx, [i]))  # type: ignore[misc]
