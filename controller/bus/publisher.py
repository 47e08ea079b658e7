"""Publishes batches: all are sent, then all confirmations are awaited, so that a batch costs one round trip."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from kombu import Connection, Exchange, Producer, Queue

from controller.bus import memory
from controller.bus.connection import BROKER_ERRORS, connect
from controller.conf.settings import Settings


@dataclass(frozen=True)
class Envelope:
    """One message as the broker takes it.

    ``queue`` is declared first, else only the exchange. One that is ``mandatory`` comes back where no queue takes it;
    one that is not ``durable`` is not written to the broker's disk.
    """

    body: str | bytes
    exchange: Exchange
    routing_key: str
    queue: Queue | None = None
    mandatory: bool = False
    durable: bool = True
    headers: Mapping[str, Any] = field(default_factory=dict)
    properties: Mapping[str, Any] = field(default_factory=dict)


class NotConfirmedError(ConnectionError):
    """The broker did not confirm a message in time."""


class RefusedError(NotConfirmedError):
    """The broker refused a message: the queue is full, or new and without a leader for a moment."""


class Publisher:
    """One connection for publishing; for one thread at a time. It is opened at the first use and after an error."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._connection: Connection | None = None
        self._producer: Producer | None = None
        self._sent = 0
        self._waiting: set[int] = set()
        self._refused = False
        self._returned: list[int] = []

    def publish(self, envelopes: Sequence[Envelope]) -> list[int]:
        """Publish in order and return when the broker has all of them; answers with the positions of the mandatory ones
        that no queue took.

        Raises:
            one of BROKER_ERRORS: some may be there, some not; the connection is given up.
        """
        self._returned = []
        try:
            producer = self._producer or self._open()
            for number, envelope in enumerate(envelopes):
                self._publish(producer, envelope, number)
            self._await_confirmations(len(envelopes))
        except Exception:
            self.close()
            raise
        return self._returned

    def close(self) -> None:
        """Close the connection; the next ``publish`` opens another."""
        if self._connection is not None:
            with suppress(*BROKER_ERRORS):
                self._connection.release()
        self._connection = self._producer = None

    def _open(self) -> Producer:
        self._connection = connect(self._settings, heartbeat=False)
        self._connection.ensure_connection(max_retries=1, timeout=self._settings.bus.publish_timeout_s)
        channel = self._connection.channel()
        self._sent, self._refused = 0, False
        self._waiting.clear()
        if not self._settings.embedded_bus:
            channel.confirm_select()
            channel.events["basic_ack"].add(self._confirmed)
            channel.events["basic_nack"].add(self._nacked)
            # The broker returns a message before it confirms it.
            channel.events["basic_return"].add(self._is_returned)
        self._producer = Producer(channel)
        return self._producer

    def _publish(self, producer: Producer, envelope: Envelope, number: int) -> None:
        self._sent += 1
        if envelope.mandatory and self._settings.embedded_bus:
            self._return_unroutable(envelope, number)
        self._waiting.add(self._sent)
        producer.publish(
            envelope.body,
            exchange=envelope.exchange,
            routing_key=envelope.routing_key,
            headers=dict(envelope.headers),
            declare=[envelope.queue or envelope.exchange],
            content_type="application/json",
            content_encoding="utf-8",
            delivery_mode=2 if envelope.durable else 1,
            mandatory=envelope.mandatory,
            message_id=str(number),
            retry=False,
            timeout=self._settings.bus.publish_timeout_s,
            **envelope.properties,
        )

    def _await_confirmations(self, count: int) -> None:
        if self._settings.embedded_bus:
            self._waiting.clear()
            return
        assert self._connection is not None
        # A large batch may take the broker longer than one message: a quorum queue writes each to disk.
        end = time.monotonic() + self._settings.bus.publish_timeout_s * (1 + count / 500)
        while self._waiting and not self._refused:
            left_s = end - time.monotonic()
            if left_s <= 0:
                raise NotConfirmedError(f"{len(self._waiting)} of {count} messages were not confirmed in time")
            with suppress(TimeoutError):
                self._connection.drain_events(timeout=left_s)
        if self._refused:
            raise RefusedError("the broker refused a message: a queue is full or has no leader")

    def _confirmed(self, tag: int, multiple: bool) -> None:
        if multiple:
            self._waiting = {t for t in self._waiting if t > tag}
        else:
            self._waiting.discard(tag)

    def _is_returned(self, _error: Exception, _exchange: str, _routing_key: str, message: Any) -> None:
        self._returned.append(int(message.properties["message_id"]))

    def _return_unroutable(self, envelope: Envelope, number: int) -> None:
        if not memory.is_routable(envelope.exchange.name, envelope.routing_key):
            self._returned.append(number)

    def _nacked(self, _tag: int, _multiple: bool) -> None:
        self._refused = True
