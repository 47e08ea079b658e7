"""Publishes batches: all are sent, then all confirmations are awaited, so that a batch costs one round trip."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from kombu import Connection, Exchange, Producer, Queue

from controller.bus.connection import BROKER_ERRORS, connect
from controller.conf.settings import Settings


@dataclass(frozen=True)
class Letter:
    """One message as the broker takes it; ``queue`` is declared first, where it is given."""

    body: str | bytes
    exchange: Exchange
    routing_key: str
    queue: Queue | None = None
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

    def publish(self, letters: Sequence[Letter]) -> None:
        """Publish in order and return when the broker has all of them.

        Raises:
            one of BROKER_ERRORS: some may be there, some not; the connection is given up.
        """
        try:
            producer = self._producer or self._open()
            for letter in letters:
                self._publish(producer, letter)
            self._await_confirmations(len(letters))
        except Exception:
            self.close()
            raise

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
        self._producer = Producer(channel)
        return self._producer

    def _publish(self, producer: Producer, letter: Letter) -> None:
        self._sent += 1
        self._waiting.add(self._sent)
        producer.publish(
            letter.body,
            exchange=letter.exchange,
            routing_key=letter.routing_key,
            headers=dict(letter.headers),
            declare=[] if letter.queue is None else [letter.queue],
            content_type="application/json",
            content_encoding="utf-8",
            delivery_mode=2,
            retry=False,
            timeout=self._settings.bus.publish_timeout_s,
            **letter.properties,
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

    def _nacked(self, _tag: int, _multiple: bool) -> None:
        self._refused = True
