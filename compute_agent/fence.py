"""Which commands an agent carries out: those of its host's epoch that have not expired, after a boot none before the
controller has answered for that boot.

The epoch, the boot that was accepted and whether 0.1 still sends are in the journal; the controllers' clock is learned
anew by each process.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from compute_agent.journal.journal import Journal
from controller.domain.clock import Clock, uptime_s
from controller.domain.messages import END_OF_EPOCHS, HostAccepted, ReconcileGuests

log = structlog.get_logger(__name__)

# Clocks of controllers may differ by this much.
_TOLERANCE = timedelta(seconds=60)
# An answer that took longer says too little about the time.
_PROMPT_S = 30.0
# The controllers' clock is asked for again after this.
_ASK_AGAIN_S = 3600.0
# A clock without a battery starts in 1970. A larger difference is an error of the sender.
_MOST_WRONG = timedelta(days=200 * 365)
_DIFFERENCES_S = ((86400, "a day"), (3600, "an hour"), (600, "ten minutes"), (60, "a minute"), (15, "15 seconds"))


class Fence:
    """The epoch of one host. ``boot_id`` is the host's; ``accepted``: a controller has answered for this boot."""

    def __init__(self, host: str, journal: Journal, clock: Clock, monotonic: Callable[[], float] = uptime_s) -> None:
        self._host = host
        self._journal = journal
        self._clock = clock
        self._monotonic = monotonic
        self._asked: tuple[int, float] = (-1, 0.0)  # the last heartbeat: its number, when it was sent
        self._first_asked: int | None = None  # the number of the first one
        self._time: tuple[datetime, float] | None = None  # the controllers' time at a moment of the monotonic clock
        self._in_doubt = False
        self._old_senders = False
        self.boot_id = ""
        self.epoch = 0
        self.accepted = False

    def load(self, boot_id: str) -> None:
        """Read what the journal knows of this boot."""
        self.boot_id = boot_id
        self.epoch, accepted = self._journal.accepted(self._host)
        # Guests may still wait for an answer since an earlier run.
        self.accepted = bool(accepted) and accepted == boot_id and not self._journal.waiting(self._host)
        self._old_senders = self._journal.old_senders(self._host)

    @property
    def asks(self) -> bool:
        """Whether the next heartbeat is to be answered."""
        known = self._time is not None and self._monotonic() - self._time[1] < _ASK_AGAIN_S
        return not (self.accepted and known) or self._in_doubt

    @property
    def knows_time(self) -> bool:
        """Whether the controllers' clock is known and this host's agrees with it."""
        return self._time is not None and abs((self._clock() - self.now()).total_seconds()) < _PROMPT_S

    def asked(self, sequence: int) -> None:
        """The heartbeat of this number is being sent."""
        if self._first_asked is None:
            self._first_asked = sequence
        self._asked = (sequence, self._monotonic())

    def now(self) -> datetime:
        """The controllers' time; this host's own until a controller has sent it."""
        if self._time is None:
            return self._clock()
        at, then = self._time
        return at + timedelta(seconds=self._monotonic() - then)

    def accept(self, message: HostAccepted) -> bool:
        """Take an answer, durably; False where it is of another boot, of an older epoch, or for an earlier run of the
        agent. Idempotent."""
        right_epoch = self.epoch <= message.epoch < END_OF_EPOCHS
        if message.boot_id != self.boot_id or not right_epoch or not self._was_asked(message.sequence):
            log.info("late answer not taken", host=self._host, epoch=message.epoch, own=self.epoch)
            return False
        self._learn_time(message)
        if not (self.accepted and message.epoch == self.epoch):
            self._accept(message)
        if message.old_senders != self._old_senders:
            self._journal.set_old_senders(self._host, message.old_senders)
            self._old_senders = message.old_senders
        return True

    def _accept(self, message: HostAccepted) -> None:
        self._journal.accept(self._host, message.epoch, message.boot_id, message.runs)
        if message.epoch != self.epoch:
            log.info("this host has another epoch", host=self._host, epoch=message.epoch, before=self.epoch)
        self.epoch, self.accepted = message.epoch, True

    def refusal(self, command: ReconcileGuests) -> str:
        """Why a command is not carried out; empty if it is."""
        if command.epoch == 0:  # of release 0.1, which knows neither
            known = self.epoch == 0 or self._old_senders
            return "" if known else "it names no epoch, and no sender of release 0.1 is left"
        if command.epoch != self.epoch:
            return f"it is for epoch {command.epoch} of this host, which has {self.epoch or 'none yet'}"
        if not self.accepted:
            return "the host was booted, and no controller has answered yet"
        if self.is_over(command.expires_at):
            self._in_doubt = True  # the clock that set our time may be the wrong one
            return f"it expired at {command.expires_at}"
        return ""

    def remarks(self) -> list[str]:
        """What an operator should know."""
        if self._time is None:
            return []
        wrong_s = abs((self._clock() - self.now()).total_seconds())
        more_than = next((text for limit_s, text in _DIFFERENCES_S if wrong_s > limit_s), "")
        return [f"its clock differs from the controllers' by more than {more_than}"] if more_than else []

    def is_over(self, expires_at: str) -> bool:
        """Whether the time by which a command had to be started has passed; empty: it has none."""
        try:
            return bool(expires_at) and self.now() - datetime.fromisoformat(expires_at) > _TOLERANCE
        except (ValueError, TypeError):
            return True

    def _was_asked(self, sequence: int) -> bool:
        """Whether this run has sent that heartbeat; 0: the answer does not say which one it is for."""
        return not sequence or (self._first_asked is not None and self._first_asked <= sequence <= self._asked[0])

    def _learn_time(self, message: HostAccepted) -> None:
        """The controller's clock said ``at`` between our question and now."""
        try:
            at = datetime.fromisoformat(message.at)
            if abs(at - self._clock()) > _MOST_WRONG:
                raise ValueError("no clock shows that")
        except (ValueError, TypeError):
            log.warning("answer without a readable time", host=self._host, at=message.at[:40])
            return
        now = self._monotonic()
        sequence, sent = self._asked
        prompt = message.sequence == sequence and now - sent <= _PROMPT_S
        if prompt:
            self._time, self._in_doubt = (at, (sent + now) / 2), False
        elif self._time is None:
            self._time = (at, now)
