"""What is seen while a benchmark runs: the oldest open transaction, and how full the queues are."""

import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

import sqlalchemy as sa
from kombu import Connection

from controller.bus.connection import BROKER_ERRORS
from controller.bus.topology import DEAD, Topology
from controller.domain.messages import EVENTS, HEARTBEATS
from tests.bench.deployment import Deployment

_EVERY_S = 0.1
_QUEUES = ("schedule", "network", EVENTS, HEARTBEATS)
_OLDEST = sa.text(
    "SELECT extract(epoch FROM clock_timestamp() - xact_start) * 1000, query FROM pg_stat_activity"
    " WHERE xact_start IS NOT NULL AND pid <> pg_backend_pid() AND datname = current_database()"
    " AND backend_type = 'client backend' ORDER BY xact_start LIMIT 1"
)


class Watcher:
    """A context whose thread looks ten times a second, while it is not paused; it begins paused.

    Transactions are seen on PostgreSQL only, queues on RabbitMQ only.
    """

    def __init__(self, site: Deployment) -> None:
        self._site = site
        self._topology = Topology(site.settings)
        self._on = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        self._longest_ms = 0.0
        self._longest_query = ""
        self._deepest = dict.fromkeys((*_QUEUES, DEAD), 0)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._on.set()
        self._thread.join(10)

    def resume(self) -> None:
        """Look from now on."""
        self._on.set()

    def pause(self) -> None:
        """What comes now is the benchmark's own doing."""
        self._on.clear()

    def result(self) -> dict[str, object]:
        """The most that was seen."""
        return {
            "longest_transaction_ms": round(self._longest_ms) if self._site.database == "postgresql" else None,
            "longest_transaction": self._longest_query,
            "queue_depth_max": dict(self._deepest) if self._site.rabbitmq else None,
        }

    def _run(self) -> None:
        engine = sa.create_engine(self._site.settings.database_url) if self._site.database == "postgresql" else None
        broker = Connection(self._site.settings.bus.url) if self._site.rabbitmq is not None else None
        while not self._stop.wait(_EVERY_S):
            self._on.wait()
            if engine is not None:
                with engine.connect() as connection:
                    self._look_at_transactions(connection)
            if broker is not None:
                with suppress(*BROKER_ERRORS):
                    self._look_at_queues(broker)
        if broker is not None:
            broker.release()

    def _look_at_transactions(self, connection: sa.Connection) -> None:
        for age_ms, query in connection.execute(_OLDEST):
            if age_ms > self._longest_ms:
                self._longest_ms, self._longest_query = float(age_ms), " ".join(query.split())[:120]

    def _look_at_queues(self, broker: Connection) -> None:
        channel = broker.default_channel
        names = {name: self._topology.queue(name).name for name in _QUEUES} | {DEAD: self._topology.dead_letters().name}
        for name, queue in names.items():
            waiting = channel.queue_declare(queue, passive=True).message_count
            self._deepest[name] = max(self._deepest[name], waiting)
