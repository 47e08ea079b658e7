"""The bus: loses, doubles, delays and reorders; and consumers that acknowledge as the real ones do."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from controller.bus.topology import DEAD
from controller.conf.settings import Bus as BusSettings
from controller.domain.errors import BusUnavailable, CloudError, PoisonMessage, Unavailable
from controller.domain.messages import Message
from controller.domain.wire import decode
from tests.simulation.faults import Fault
from tests.simulation.simulator import Process, Simulator

_RETRY_S = 1.0

BatchHandler = Callable[[Sequence[Message]], object]
EnvelopeHandler = Callable[[Sequence["Envelope"]], object]
CallHandler = Callable[[Message], Message | None]
DeadHandler = Callable[[bytes, dict[str, str]], None]


@dataclass(eq=False)
class Envelope:
    """A message as the broker has it."""

    queue: str
    body: str
    attempts: int = 0
    reason: str = ""
    origin: str = ""
    answer: Callable[[str], None] | None = None  # of the caller


@dataclass(eq=False)
class Consumer:
    """One consumer of a queue; ``held`` is delivered and not acknowledged."""

    process: Process
    queue: str
    handler: EnvelopeHandler
    batch: int
    held: list[Envelope] = field(default_factory=list)
    closed: bool = False


class Broker:
    """The queues, which outlive every process; ``bus_of`` gives a process its way to them."""

    def __init__(self, simulator: Simulator, settings: BusSettings) -> None:
        self._simulator = simulator
        self._settings = settings
        self._ready: dict[str, list[Envelope]] = {}
        self._consumers: dict[str, list[Consumer]] = {}
        self._under_way = 0
        self._down = False
        self.up_since = 0.0
        self.dead: list[Envelope] = []
        self.abandoned: set[str] = set()  # queues that will never be consumed again
        self.removed_at: dict[str, float] = {}  # queues that services have removed, and when
        self._undeclared: set[str] = set()

    # --- for services ---

    def bus_of(self, process: Process) -> "SimulatedBus":
        """A process's own bus."""
        return SimulatedBus(self, self._simulator, process)

    def consume(self, process: Process, queue: str, handler: BatchHandler, *, batch: int = 1) -> None:
        """Consume until the process ends."""
        read = process.release.read
        self._open(
            process, queue, lambda envelopes: handler([decode(read(envelope.body)) for envelope in envelopes]), batch
        )

    def consume_calls(self, process: Process, queue: str, handler: CallHandler) -> None:
        """Consume as QueueConsumer does: one by one, what was asked is answered."""

        def handle(envelopes: Sequence[Envelope]) -> None:
            for envelope in envelopes:
                answer = handler(decode(process.release.read(envelope.body)))
                written = process.release.written(answer) if answer is not None else None
                if written is not None and envelope.answer is not None:
                    self._simulator.at(0.01, partial(envelope.answer, written))

        self._open(process, queue, handle, 1)

    def consume_dead(self, process: Process, handler: DeadHandler) -> None:
        """Consume the dead letters as DeadLetterConsumer does."""

        def handle(envelopes: Sequence[Envelope]) -> None:
            for envelope in envelopes:
                handler(envelope.body.encode(), {"queue": envelope.origin, "reason": envelope.reason})

        self._open(process, DEAD, handle, 1)

    def _open(self, process: Process, queue: str, handler: EnvelopeHandler, batch: int) -> None:
        consumer = Consumer(process, queue, handler, batch)
        self._consumers.setdefault(queue, []).append(consumer)
        process.on_death.append(lambda: self._close(consumer))
        self._pump(queue)

    def publish(self, envelope: Envelope, delay_s: float) -> None:
        """Put a letter into its queue after a while."""
        self._under_way += 1
        self._simulator.at(delay_s, lambda: self._arrive(envelope))

    # --- for the site ---

    @property
    def idle(self) -> bool:
        """Whether nothing is under way, waiting or in hand."""
        held = any(c.held for consumers in self._consumers.values() for c in consumers)
        ready = any(envelopes for queue, envelopes in self._ready.items() if queue not in self.abandoned)
        return not self._under_way and not held and not ready

    @property
    def down(self) -> bool:
        """Whether it cannot be reached."""
        return self._down

    def go_down(self) -> None:
        """Be away; what was delivered and not acknowledged goes back."""
        self._down = True
        for consumers in self._consumers.values():
            for consumer in consumers:
                self._take_back(consumer)

    def come_up(self, *, empty: bool = False) -> None:
        """Be there again; ``empty``: with nothing that it had."""
        if empty:
            self._simulator.note(f"the broker has lost {sum(map(len, self._ready.values()))} letters")
            self._ready.clear()
        if self._down:
            self._down, self.up_since = False, self._simulator.now
        self.pump_all()

    def pump_all(self) -> None:
        """Deliver what can be delivered."""
        for queue in list(self._ready):
            self._pump(queue)

    def remove_queue(self, queue: str) -> None:
        """Remove a queue with all that is in it; who consumes it declares it anew. Until then there is none."""
        self.removed_at[queue] = self._simulator.now
        self._undeclared.add(queue)
        self._ready.pop(queue, None)
        for consumer in self._consumers.get(queue, ()):
            consumer.held = []

    def reaches(self, process: Process) -> bool:
        """Whether a process has a connection."""
        return not self._down and process.cut_off_until <= self._simulator.now

    # --- delivery ---

    def _arrive(self, envelope: Envelope) -> None:
        self._under_way -= 1
        if not self._is_declared(envelope.queue):
            self._simulator.note(f"nothing is bound to {envelope.queue}")
            return
        self._ready.setdefault(envelope.queue, []).append(envelope)
        self._pump(envelope.queue)

    def _is_declared(self, queue: str) -> bool:
        if any(self.reaches(consumer.process) for consumer in self._consumers.get(queue, ())):
            self._undeclared.discard(queue)
        return queue not in self._undeclared

    def _pump(self, queue: str) -> None:
        """In any order: a broker prefers one of the consumers, and gives the others what is beyond it (``x-priority``);
        those of 0.1 come last there. So no order between two is left out, and none is given all of it."""
        consumers = self._consumers.get(queue, ())
        for consumer in self._simulator.random.sample(list(consumers), len(consumers)):
            ready = self._ready.get(queue)
            if not ready:
                return
            if consumer.held or not self.reaches(consumer.process):
                continue
            count = self._simulator.random.randint(1, consumer.batch)
            consumer.held, ready[:count] = ready[:count], []
            self._simulator.at(0.001, lambda c=consumer, h=consumer.held: self._handle(c, h), consumer.process)  # type: ignore[misc]

    def _close(self, consumer: Consumer) -> None:
        consumer.closed = True
        self._consumers[consumer.queue].remove(consumer)
        self._take_back(consumer)
        self._pump(consumer.queue)

    def _take_back(self, consumer: Consumer) -> None:
        self._ready.setdefault(consumer.queue, [])[:0] = consumer.held
        consumer.held = []

    def _handle(self, consumer: Consumer, envelopes: list[Envelope]) -> None:
        """As BatchConsumer does: all in one transaction, or each alone."""
        if consumer.held is not envelopes:
            return  # the connection that delivered them is gone
        if len(envelopes) > 1:
            try:
                consumer.handler(envelopes)
            except Exception as error:
                self._simulator.note(f"batch of {consumer.queue} failed: {type(error).__name__}")
            else:
                self._acknowledge(consumer, envelopes)
                return
        self._handle_each(consumer, envelopes, 0)

    def _handle_each(self, consumer: Consumer, envelopes: list[Envelope], first: int) -> None:
        for n in range(first, len(envelopes)):
            if consumer.held is not envelopes:
                return
            envelope = envelopes[n]
            try:
                consumer.handler([envelope])
            except PoisonMessage as error:
                self._bury(envelope, str(error))
            except Unavailable as error:
                self._simulator.note(f"{consumer.queue} waits: {error}")
                again = lambda n=n: self._handle_each(consumer, envelopes, n)  # noqa: E731
                self._simulator.at(_RETRY_S, again, consumer.process)
                return
            except Exception as error:
                self._put_back(envelope, error)
        self._acknowledge(consumer, envelopes)

    def _acknowledge(self, consumer: Consumer, envelopes: list[Envelope]) -> None:
        self._simulator.point("acknowledge")
        if consumer.held is envelopes:
            consumer.held = []
            self._pump(consumer.queue)

    def _put_back(self, envelope: Envelope, error: Exception) -> None:
        if not isinstance(error, CloudError):
            self._simulator.surprise(error)
        attempts = envelope.attempts + 1
        if attempts >= self._settings.max_attempts or (isinstance(error, CloudError) and not error.retriable):
            self._bury(envelope, f"{type(error).__name__}: {error}")
            return
        self.publish(Envelope(envelope.queue, envelope.body, attempts), min(0.05 * 2**attempts, 2.0))

    def _bury(self, envelope: Envelope, reason: str) -> None:
        self._simulator.note(f"dead letter of {envelope.queue}: {reason}")
        self.dead.append(envelope)
        self.publish(Envelope(DEAD, envelope.body, envelope.attempts + 1, reason, envelope.queue), 0.001)


class SimulatedBus:
    """One process's ``Sender``."""

    def __init__(self, broker: Broker, simulator: Simulator, process: Process) -> None:
        self._broker = broker
        self._simulator = simulator
        self._process = process

    def send(self, message: Message) -> None:
        """See ``Sender``."""
        self.send_all([message])

    def send_all(self, messages: Sequence[Message]) -> None:
        """See ``Sender``."""
        for message in messages:
            self._simulator.point(f"send {message.KIND}")
            if not self._broker.reaches(self._process) or self._simulator.faults.strikes(Fault.SEND_FAILS):
                raise BusUnavailable(what="The message bus", reason="the broker does not answer")
            self._transmit(message)
            if self._simulator.faults.strikes(Fault.SEND_UNKNOWN):
                raise BusUnavailable(what="The message bus", reason="not confirmed in time")
            self._simulator.point(f"sent {message.KIND}")

    def notify(self, messages: Iterable[Message]) -> None:
        """See ``Sender``; what waits for the notifier's thread is lost with the process."""
        for message in dict.fromkeys(messages):
            self._simulator.point(f"ring {message.KIND}")
            if self._broker.reaches(self._process):
                self._transmit(message)

    def call(self, message: Message, timeout_s: float) -> Message:
        """See ``Sender``; who is paused too deep to wait has no answer."""
        simulator = self._simulator
        simulator.point(f"call {message.KIND}")
        if not self._broker.reaches(self._process):
            raise BusUnavailable(what="The message bus", reason="the broker does not answer")
        answers: list[str] = []
        body = self._process.release.written(message)
        if body is None:
            raise TimeoutError(f"{message.KIND} is not known here")
        envelope = Envelope(message.queue, body, answer=answers.append)
        self._broker.publish(envelope, simulator.random.expovariate(200))
        end = simulator.now + timeout_s
        while not answers and simulator.now < end:
            before = simulator.now
            simulator.pause(0.2)
            if simulator.now == before:
                break
        if not answers:
            raise TimeoutError(f"no answer to {message.KIND} within {timeout_s} s")
        return decode(answers[0])

    def _transmit(self, message: Message) -> None:
        simulator, release = self._simulator, self._process.release
        body = release.written(message)
        if body is None:
            return
        if simulator.faults.strikes(Fault.MESSAGE_LOST):
            simulator.note(f"lost: {summary(message)}")
            return
        copies = 2 if simulator.faults.strikes(Fault.MESSAGE_DOUBLED) else 1
        for _ in range(copies):
            delay_s = simulator.random.expovariate(200)
            if simulator.faults.strikes(Fault.MESSAGE_LATE):
                delay_s = simulator.random.choice((1, 10, 100, 1000)) * simulator.random.random()
            simulator.note(f"{summary(message)}, there in {delay_s:.3f} s")
            self._broker.publish(Envelope(release.queue(message), body), delay_s)


def summary(message: Message) -> str:
    """A message in a few words, for the trace."""
    guests = getattr(message, "guests", ()) or getattr(message, "reports", ())
    told = [
        f"{g.instance_id[:8]}@{g.generation} {getattr(g, 'desired', '') or getattr(g, 'event', '') or g.power}"
        for g in guests
    ]
    who = getattr(message, "host", "") or getattr(message, "reservation_id", "")[:8]
    return " ".join([message.KIND, who, *told]).strip()
