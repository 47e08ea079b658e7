"""One host's agent: makes its guests as they are desired, and reports the results.

Free of threads: a service calls it. Whatever line it dies at, the next run continues from the journal.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import structlog

from compute_agent import commands
from compute_agent.commands import CommandContext, Handled
from compute_agent.driver import Driver
from compute_agent.errors import WorkAbandoned, one_line
from compute_agent.fence import Fence
from compute_agent.heartbeat import Heartbeats, HostOptions
from compute_agent.journal.journal import Journal, PendingRequest
from compute_agent.retries import Retries
from compute_agent.unreported import Unreported
from controller.bus.sender import Sender
from controller.domain.clock import Clock, uptime_s
from controller.domain.errors import BusUnavailable, CloudError, Unavailable
from controller.domain.guests import Desired, OffCause, Power
from controller.domain.messages import GuestsChanged, GuestSpec, Message
from controller.domain.states import Event

log = structlog.get_logger(__name__)

GRACE_S = 30.0
_NO_OPTIONS = HostOptions()
# Longer than a message can be late: the broker holds none for days.
TOMBSTONES_KEPT = timedelta(days=7)
_REASON_CHARS = 500
_WHY_OFF = {
    OffCause.UNKNOWN: "the guest powered off or its process ended",
    OffCause.SHUTDOWN: "the guest powered itself off",
    OffCause.CRASHED: "the guest crashed, or its process ended",
    OffCause.DESTROYED: "the guest's power was taken on its host",
}


@dataclass(frozen=True)
class _Outcome:
    """The result of a request."""

    generation: int
    event: Event
    reason: str = ""


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
        options: HostOptions = _NO_OPTIONS,
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
        self._monotonic = monotonic
        self._retries = Retries(jitter)
        self._fence = Fence(host, journal, clock, monotonic)
        self._unreported = Unreported(host, journal, clock)
        self._commands = CommandContext(host, driver, journal, self._fence, self._unreported)
        self._heartbeats = Heartbeats(host, driver, journal, self._fence, clock, options)
        self._unwritten: dict[str, _Outcome] = {}  # instance -> what the journal could not take yet
        self._working: set[str] = set()
        self._started_at: float | None = None
        self._unconfirmed = 0  # guests that were started without a controller's answer
        self.troubles: dict[str, str] = {}  # task -> why it failed when it was last tried

    def recover(self) -> bool:
        """At each start, before anything else: find what happened to the guests meanwhile; True once done.

        Raises:
            DriverError: the hypervisor cannot be asked.
        """
        if adopted := self._journal.adopt(self.host, self._driver.list_guests()):
            log.warning("guests that the journal does not know", host=self.host, count=adopted)
        boot_id = self._driver.boot_id
        if again := self._journal.booted(self.host, boot_id):
            log.warning("the host was booted: its guests wait for a controller's answer", host=self.host, count=again)
        self._fence.load(boot_id)
        expired = [i for i, at in self._journal.expiries(self.host).items() if self._fence.is_over(at)]
        if expired:
            log.info("old commands wait for a controller's answer", host=self.host, count=len(expired))
            self._journal.hold(self.host, expired)
            self._fence.accepted = False
        self._started_at = self._monotonic()
        return True

    def handle(self, message: Message) -> Handled:
        """Take a command (see ``commands.handle``)."""
        return commands.handle(self._commands, message)

    def pending(self) -> list[GuestSpec]:
        """The guests that are not yet as they are desired, first come first."""
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
        # Before the request is read: an answer may drop it from the journal while it is carried out.
        self._working.add(instance_id)
        try:
            return self._work(instance_id)
        finally:
            self._working.discard(instance_id)

    def report(self) -> bool:
        """Report what is new; False if the bus does not take it: then it goes with the next report."""
        while message := self.unreported():
            try:
                self._bus.send(message)
            except BusUnavailable as error:
                log.warning("not reported yet", host=self.host, count=len(message.reports), reason=str(error))
                return False
            self.mark_reported(message)
        return True

    def unreported(self) -> GuestsChanged | None:
        """What the controller does not know yet, in one message; None if there is nothing."""
        return self._unreported.message()

    def mark_reported(self, message: GuestsChanged) -> None:
        """The broker has this message."""
        self._unreported.mark_sent(message)

    def heartbeat(self) -> None:
        """Report that this host lives, what it has and its guests; the message may be lost."""
        self._bus.notify([self._heartbeats.next(self._working, unconfirmed=self._unconfirmed)])

    def start_unconfirmed(self) -> int:
        """Start what has waited too long for a controller's answer, if that is configured; returns how many guests."""
        after_s, since = self._options.start_unconfirmed_after_s, self._started_at
        if self._fence.accepted or not after_s or since is None or self._monotonic() - since < after_s:
            return 0
        count = self._journal.release(self.host)
        if count:
            self._unconfirmed += count
            log.warning("guests are started though no controller has answered", host=self.host, count=count)
        return count

    def watch(self) -> int:
        """Notice guests that stopped, vanished or were started without us; returns how many."""
        # Before the guests are listed: a result that is newer than the list is not a surprise.
        settled = self._journal.settled(self.host)
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
        """Now and then: forget guests that are gone for long, rotate consoles, remove old disks that were kept."""
        self._journal.forget((self._clock() - TOMBSTONES_KEPT).timestamp())
        self._driver.tidy()
        if self._fence.knows_time:  # with a wrong clock all of them might seem old
            self._driver.prune_kept(self._fence.now() - timedelta(seconds=self._options.keep_disks_s))

    def _work(self, instance_id: str) -> float | None:
        request = self._journal.pending_request(self.host, instance_id)
        if request is None or not commands.is_known(self.host, request.spec):
            self._unwritten.pop(instance_id, None)
            return None
        outcome = self._unwritten.get(instance_id)
        if outcome is None or outcome.generation != request.spec.generation:
            tried = self._try(request)
            if not isinstance(tried, _Outcome):
                return tried
            # If the journal cannot take it now, it is not done again for that: a reboot would be another one.
            outcome = self._unwritten[instance_id] = tried
        newest = self._journal.finish(self.host, instance_id, outcome.generation, outcome.event, outcome.reason)
        del self._unwritten[instance_id]
        return None if newest else 0.0

    def _try(self, request: PendingRequest) -> _Outcome | float:
        """Carry it out; the seconds after which to try again, if that may help. See ``work`` for what it raises."""
        generation, instance_id = request.spec.generation, request.spec.instance_id
        try:
            outcome = _Outcome(generation, self._carry_out(request))
        except (WorkAbandoned, Unavailable):
            raise
        except CloudError as error:
            if (pause_s := self._try_again(request.spec, error)) is not None:
                return pause_s
            outcome = _Outcome(generation, Event.FAILED, one_line(error, _REASON_CHARS))
            log.warning("guest failed", host=self.host, instance=instance_id, reason=outcome.reason)
        except Exception as error:
            if (pause_s := self._try_again(request.spec, error)) is not None:
                return pause_s
            log.exception("guest failed", host=self.host, instance=instance_id)
            reason = f"internal error of the agent: {type(error).__name__}: {one_line(error, _REASON_CHARS)}"
            outcome = _Outcome(generation, Event.FAILED, reason)
        self._retries.forget(instance_id)
        return outcome

    def _carry_out(self, request: PendingRequest) -> Event:
        spec = request.spec
        match spec.desired:
            case Desired.RUNNING:
                self._run(spec, request.built)
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

    def _try_again(self, spec: GuestSpec, error: Exception) -> float | None:
        """Seconds until the next attempt; None if there is none."""
        failures = self._retries.failed(spec, error)
        if not failures:
            return None
        pause_s = self._retries.pause_s(failures)
        log.info(
            "trying again",
            host=self.host,
            instance=spec.instance_id,
            failed=failures,
            pause_s=round(pause_s, 1),
            reason=str(error),
        )
        return pause_s
