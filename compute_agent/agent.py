"""One host's agent: makes its guests as they are desired, and tells what became of them.

Free of threads: a service calls it. Whatever line it dies at, the next run mends it from the journal.
"""

import base64
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice

import structlog

from compute_agent.driver import Driver
from compute_agent.errors import WorkAbandoned, is_shortage, told
from compute_agent.fence import Fence
from compute_agent.journal.journal import Journal, PendingRequest
from compute_agent.mac_probe import MacProbe, MacReport
from compute_agent.observed_state import observe_host
from controller.bus.bus import Sender
from controller.bus.unread import UNREAD
from controller.domain.clock import Clock, uptime_s
from controller.domain.errors import BusUnavailable, CloudError, HostError, PoisonMessage, Unavailable
from controller.domain.guests import Desired, OffCause, Power
from controller.domain.host_facts import MAX_IMAGES
from controller.domain.messages import (
    UNTOLD,
    ConsoleRead,
    GuestsChanged,
    GuestSpec,
    GuestState,
    HostAccepted,
    HostObservation,
    HostReported,
    Message,
    ObserveHost,
    OutdatedRequest,
    ReadConsole,
    ReconcileGuests,
    RemoveImages,
    RemoveTaps,
)
from controller.domain.release import RELEASE
from controller.domain.states import Event
from controller.domain.wire import VERSION

log = structlog.get_logger(__name__)

ATTEMPTS = 8
_BACKOFF_S, _BACKOFF_MAX_S = 1.0, 30.0
GRACE_S = 30.0
# Longer than a message can be late: the broker holds none for days.
TOMBSTONES_KEPT = timedelta(days=7)
REPORTS_IN_A_MESSAGE = 1000
_CONSOLE_MAX_BYTES = 1024 * 1024
_REASON_CHARS = 500
_WHY_OFF = {
    OffCause.UNKNOWN: "the guest powered off or its process ended",
    OffCause.SHUTDOWN: "the guest powered itself off",
    OffCause.CRASHED: "the guest crashed, or its process ended",
    OffCause.DESTROYED: "the guest's power was taken on its host",
}
_KEPT_NAMED = 10


@dataclass(frozen=True)
class HostOptions:
    """What the configuration says of a host; its driver does not know it."""

    zone: str = ""
    labels: tuple[str, ...] = ()
    disk_backends: tuple[str, ...] = ()
    mac_probe: MacProbe | None = None
    start_unconfirmed_after_s: float = 0.0
    keep_disks_s: float = 7 * 86400.0


@dataclass(frozen=True)
class _Outcome:
    """What became of a wish."""

    generation: int
    event: Event
    reason: str = ""


def facts(host: str, driver: Driver, options: HostOptions, at: datetime) -> HostReported:
    """What a host is and has; its guests are left out.

    Raises:
        DriverError: the hypervisor cannot be asked.
    """
    capacity = driver.capacity()
    macs = options.mac_probe.report(host) if options.mac_probe else MacReport()
    return HostReported(
        host=host,
        at=at.isoformat(),
        boot_id=driver.boot_id,
        hypervisor=capacity.hypervisor,
        vcpus=capacity.vcpus,
        memory_mib=capacity.memory_mib,
        disk_gib=capacity.disk_gib,
        architecture=capacity.architecture,
        zone=options.zone,
        labels=options.labels,
        images=driver.images()[:MAX_IMAGES],
        disk_backends=options.disk_backends,
        allowed_macs=macs.macs,
        probe_error=macs.error,
        release=RELEASE,
        speaks=VERSION,
        guest_overhead_mib=capacity.guest_overhead_mib,
    )


class Agent:
    """The agent of one host.

    ``handle`` may be called by one thread while others ``work`` on different guests and one reports.
    """

    def __init__(
        self,
        host: str,
        driver: Driver,
        journal: Journal,
        bus: Sender,
        clock: Clock,
        *,
        options: HostOptions = HostOptions(),
        grace_s: float = GRACE_S,
        jitter: Callable[[], float] = random.random,
        monotonic: Callable[[], float] = uptime_s,
    ) -> None:
        self.host = host
        self._driver = driver
        self._journal = journal
        self._bus = bus
        self._clock = clock
        self._options = options
        self._grace_s = grace_s
        self._jitter = jitter
        self._failures: dict[str, tuple[int, int]] = {}  # instance -> generation, how often it failed
        self._outdated: dict[
            str, OutdatedRequest
        ] = {}  # by instance, until told; one that is lost is found by the next ring
        self._unwritten: dict[str, _Outcome] = {}  # instance -> what the journal could not take yet
        self._outdated_lock = threading.Lock()
        self.troubles: dict[str, str] = {}  # task -> why it failed when it was last tried
        self._sequence = int(clock().timestamp() * 1000)
        self._monotonic = monotonic
        self._begun: float | None = None
        self._unconfirmed = 0  # guests that were started without an answer
        self._working: set[str] = set()
        self._fence = Fence(host, journal, clock, monotonic)

    def begin(self) -> bool:
        """At each start, before anything else: find what happened to the guests meanwhile; True once done.

        Raises:
            DriverError: the hypervisor cannot be asked.
        """
        if adopted := self._journal.adopt(self.host, self._driver.list_guests()):
            log.warning("guests that the journal does not know", host=self.host, count=adopted)
        boot_id = self._driver.boot_id
        if again := self._journal.booted(self.host, boot_id):
            log.warning("the host was booted: its guests wait for a controller's answer", host=self.host, count=again)
        self._fence.begin(boot_id)
        expired = [i for i, at in self._journal.expiries(self.host).items() if self._fence.is_over(at)]
        if expired:
            log.info("old commands wait for a controller's answer", host=self.host, count=len(expired))
            self._journal.hold(self.host, expired)
            self._fence.accepted = False
        self._begun = self._monotonic()
        return True

    def handle(self, message: Message) -> Message | None:
        """Take a command: its intent is durable when this returns, the work comes later.

        Raises:
            Unavailable: the journal cannot be written; the message is to be kept. PoisonMessage: not for an agent.
        """
        match message:
            case ReconcileGuests():
                if reason := self._fence.refusal(message):
                    log.warning("command dropped", host=self.host, guests=len(message.guests), reason=reason)
                    return None
                outdated = self._journal.record(
                    self.host, [g for g in message.guests if self._knows(g)], message.expires_at
                )
                with self._outdated_lock:
                    self._outdated |= {request.instance_id: request for request in outdated}
                return None
            case HostAccepted():
                self._fence.accept(message)
                return None
            case ReadConsole():
                return self._read_console(message)
            case ObserveHost():
                return observe_host(self.host, self._driver, self._journal)
            case RemoveTaps():
                return self._remove_taps(message)
            case RemoveImages():
                self._driver.remove_images(message.images)
                return None
        raise PoisonMessage(reason=f"{message.KIND} is not for an agent")

    def heeded(self, specs: Sequence[GuestSpec]) -> list[GuestSpec]:
        """Those of a command just handled that were not outdated."""
        with self._outdated_lock:
            outdated = {(request.instance_id, request.generation) for request in self._outdated.values()}
        return [spec for spec in specs if (spec.instance_id, spec.generation) not in outdated]

    def pending(self) -> list[GuestSpec]:
        """The guests that want work, as they are desired, first come first."""
        return self._journal.pending(self.host)

    def has_work(self, instance_id: str) -> bool:
        """Whether this guest is not yet as it is desired. Raises Unavailable: the journal cannot be read."""
        return self._journal.pending_request(self.host, instance_id) is not None

    def work(self, instance_id: str) -> float | None:
        """Make one guest as it is desired now; never called twice at once for one guest.

        Returns:
            None when there is nothing more to do; else the seconds after which to call again.

        Raises:
            WorkAbandoned: the agent is stopping. Unavailable: the journal cannot be written.
        """
        self._working.add(instance_id)  # before the wish is read: what ``accept`` drops later is still in hand
        try:
            return self._work(instance_id)
        finally:
            self._working.discard(instance_id)

    def _work(self, instance_id: str) -> float | None:
        pending_request = self._journal.pending_request(self.host, instance_id)
        if pending_request is None or not self._knows(pending_request.spec):
            self._unwritten.pop(instance_id, None)
            return None
        outcome = self._unwritten.get(instance_id)
        if outcome is None or outcome.generation != pending_request.spec.generation:
            tried = self._try(pending_request)
            if not isinstance(tried, _Outcome):
                return tried
            # Should the journal not take it now, it is not done again for that: a reboot would be another one.
            outcome = self._unwritten[instance_id] = tried
        newest = self._journal.finish(self.host, instance_id, outcome.generation, outcome.event, outcome.reason)
        del self._unwritten[instance_id]
        return None if newest else 0.0

    def report(self) -> bool:
        """Tell the controller what is new; False when the bus does not take it: then it goes with the next."""
        while message := self.news():
            try:
                self._bus.send(message)
            except BusUnavailable as error:
                log.warning("not reported yet", host=self.host, count=len(message.reports), reason=str(error))
                return False
            self.told(message)
        return True

    def news(self) -> GuestsChanged | None:
        """What the controller has not been told yet, in one message; None when there is nothing."""
        reports = self._journal.unreported(self.host, REPORTS_IN_A_MESSAGE)
        with self._outdated_lock:
            outdated = tuple(islice(self._outdated.values(), REPORTS_IN_A_MESSAGE))
        return GuestsChanged(self.host, tuple(reports), outdated) if reports or outdated else None

    def told(self, message: GuestsChanged) -> None:
        """The broker has this message."""
        with self._outdated_lock:
            for request in message.outdated:
                if self._outdated.get(request.instance_id) == request:
                    del self._outdated[request.instance_id]
        if message.reports:
            self._journal.mark_reported(self.host, message.reports, self._clock().timestamp())

    def heartbeat(self) -> None:
        """Tell the controller that this host lives, what it has and which guests are there; may be lost."""
        # In this order: what is begun in this epoch is in hand, or among the guests.
        epoch = self._fence.epoch
        pending = self._journal.in_hand(self.host) | set(self._working)
        generations = self._journal.generations(self.host)
        guests = self._driver.list_guests()
        self._sequence += 1
        now = facts(self.host, self._driver, self._options, self._clock())
        seen = tuple(GuestState(i, generations.get(i, UNTOLD), p) for i, p in sorted(guests.items()))
        self._fence.asked(self._sequence)
        self._bus.notify(
            [
                replace(
                    now,
                    guests=seen,
                    sequence=self._sequence,
                    epoch=epoch,
                    asks=self._fence.asks,
                    pending=tuple(sorted(pending)),
                    remarks=tuple(self._remarks()),
                )
            ]
        )

    def start_unconfirmed(self) -> int:
        """Start what has waited for too long for an answer, where that is configured; returns how many guests."""
        after_s = self._options.start_unconfirmed_after_s
        if self._fence.accepted or not after_s or self._begun is None or self._monotonic() - self._begun < after_s:
            return 0
        count = self._journal.release(self.host)
        if count:
            self._unconfirmed += count
            log.warning("guests are started though no controller has answered", host=self.host, count=count)
        return count

    def watch(self) -> int:
        """Notice guests that stopped, vanished or were started without us; returns how many."""
        settled = self._journal.settled(self.host)  # before the guests: what is newer than these is no surprise
        guests = self._driver.list_guests()
        noticed = 0
        off = {i for i, was in settled.items() if was[1] is Event.RUNNING and guests.get(i) is not Power.RUNNING}
        causes = self._driver.why_off(off & guests.keys()) if off else {}
        for instance_id, was in settled.items():
            if instance_id in off:
                cause = causes.get(instance_id, OffCause.UNKNOWN)
                reason = _WHY_OFF[cause] if instance_id in guests else "the guest has vanished"
                noticed += self._journal.observe(self.host, instance_id, was, Event.SHUT_OFF, reason, cause.value)
            elif was[1] is Event.SHUT_OFF and guests.get(instance_id) is Power.RUNNING:
                noticed += self._journal.observe(self.host, instance_id, was, Event.RUNNING, "started on the host")
        return noticed

    def tidy(self) -> None:
        """Now and then: forget what nobody will ask for any more."""
        self._journal.forget((self._clock() - TOMBSTONES_KEPT).timestamp())
        self._driver.tidy()
        if self._fence.knows_time:  # with a wrong clock all of them might seem old
            self._driver.prune_kept(self._fence.now() - timedelta(seconds=self._options.keep_disks_s))

    def _remarks(self) -> list[str]:
        remarks = self._fence.remarks()
        if unread := UNREAD.told():
            remarks.append(f"it cannot read what a newer release sends: {' '.join(unread)}")
        if waiting := self._journal.waiting(self.host):
            remarks.append(f"{waiting} guests wait until a controller has accepted this boot of the host")
        if self._unconfirmed:
            remarks.append(f"{self._unconfirmed} guests were started though no controller had accepted this boot")
        if kept := sorted({k.instance_id for k in self._driver.kept()}):
            more = f" and {len(kept) - _KEPT_NAMED} more" if len(kept) > _KEPT_NAMED else ""
            remarks.append(f"disks of removed guests are kept: {' '.join(kept[:_KEPT_NAMED])}{more}")
        return remarks

    def _try(self, pending_request: PendingRequest) -> _Outcome | float:
        """Carry it out; the seconds after which to try again, where that may help. See ``work`` for what it raises."""
        generation, instance_id = pending_request.spec.generation, pending_request.spec.instance_id
        try:
            outcome = _Outcome(generation, self._carry_out(pending_request))
        except (WorkAbandoned, Unavailable):
            raise
        except CloudError as error:
            if (pause_s := self._try_again(pending_request, error)) is not None:
                return pause_s
            outcome = _Outcome(generation, Event.FAILED, told(error, _REASON_CHARS))
            log.warning("guest failed", host=self.host, instance=instance_id, reason=outcome.reason)
        except Exception as error:
            if (pause_s := self._try_again(pending_request, error)) is not None:
                return pause_s
            log.exception("guest failed", host=self.host, instance=instance_id)
            reason = f"internal error of the agent: {type(error).__name__}: {told(error, _REASON_CHARS)}"
            outcome = _Outcome(generation, Event.FAILED, reason)
        self._failures.pop(instance_id, None)
        return outcome

    def _knows(self, spec: GuestSpec) -> bool:
        """Whether this release knows what is asked for; if not, the guest stays as it is."""
        if not spec.desired.known:
            log.warning("a wish of a newer release", host=self.host, instance=spec.instance_id, desired=spec.desired)
        return spec.desired.known

    def _carry_out(self, pending_request: PendingRequest) -> Event:
        spec = pending_request.spec
        match spec.desired:
            case Desired.RUNNING:
                self._run(spec, pending_request.built)
                return Event.RUNNING
            case Desired.SHUT_OFF:
                self._driver.shut_off(spec.instance_id, self._grace_s)
                return Event.SHUT_OFF
            case Desired.ABSENT:
                self._driver.destroy(spec.instance_id, keep=self._fence.now() if spec.keep_disk else None)
                return Event.GONE
        raise AssertionError(f"{spec.desired} was not to be carried out")

    def _run(self, spec: GuestSpec, built: bool) -> None:
        if not built and spec.may_create:
            self._driver.spawn(spec)
        elif spec.reboot:
            self._driver.reboot(spec, self._grace_s)
        else:
            self._driver.start(spec)

    def _try_again(self, pending_request: PendingRequest, error: Exception) -> float | None:
        """Seconds until the next attempt, with a growing pause; None when it is no use or was the last.

        What cannot be removed is tried again whatever the reason: nothing may be left behind.
        """
        spec = pending_request.spec
        removing = spec.desired is Desired.ABSENT and isinstance(error, HostError)
        may_pass = is_shortage(error) or (isinstance(error, CloudError) and error.retriable)
        if not may_pass and not removing:
            return None
        generation, failed = self._failures.get(spec.instance_id, (spec.generation, 0))
        failed = failed + 1 if generation == spec.generation else 1
        if failed >= ATTEMPTS:
            return None
        self._failures[spec.instance_id] = (spec.generation, failed)
        pause_s = min(_BACKOFF_S * 2.0 ** (failed - 1), _BACKOFF_MAX_S) * (0.75 + self._jitter() / 2)
        log.info(
            "trying again",
            host=self.host,
            instance=spec.instance_id,
            failed=failed,
            pause_s=round(pause_s, 1),
            reason=str(error),
        )
        return pause_s

    def _remove_taps(self, command: RemoveTaps) -> HostObservation:
        try:
            self._driver.remove_taps(command.taps)
        except CloudError as error:
            return HostObservation(self.host, error=str(error))
        return observe_host(self.host, self._driver, self._journal)

    def _read_console(self, question: ReadConsole) -> ConsoleRead:
        try:
            limit = min(max(question.max_bytes, 0), _CONSOLE_MAX_BYTES)
            data = self._driver.console(question.instance_id, limit)
        except (CloudError, OSError, ValueError) as error:
            return ConsoleRead(question.instance_id, "", str(error))
        return ConsoleRead(question.instance_id, base64.b64encode(data).decode())
