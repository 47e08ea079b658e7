"""What a benchmark cost: statements, messages, CPU seconds since the meter was started."""

import re

import sqlalchemy as sa

from tests.bench.deployment import Deployment

_RECEIVED = re.compile(r"messages_received_total\s*=>\s*(\d+)")


class Meters:
    """Counters of the servers, read now and again later; the difference is the cost."""

    def __init__(self, site: Deployment) -> None:
        self._site = site
        self._engine = sa.create_engine(site.settings.database_url) if site.server else None
        if site.database == "postgresql":
            self._scalar("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        self._statements = self._count_statements()
        self._messages = self._count_messages()
        self._cpu_s = site.cpu_s()

    def per_instance(self, instances: int) -> dict[str, float | None]:
        """Statements and messages, divided by the instances."""
        statements, messages = self._count_statements(), self._count_messages()
        return {
            "statements_per_instance": _share(statements, self._statements, instances),
            "messages_per_instance": _share(messages, self._messages, instances),
        }

    def statements(self) -> int | None:
        """Statements since the start."""
        now = self._count_statements()
        return None if now is None or self._statements is None else now - self._statements

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds of each process since the start."""
        return {n: round(s - self._cpu_s.get(n, 0), 2) for n, s in self._site.cpu_s().items()}

    def _count_statements(self) -> int | None:
        """All that the server executed; an embedded SQLite does not count."""
        if self._site.database == "postgresql":
            return self._scalar("SELECT sum(calls)::bigint FROM pg_stat_statements")
        if self._site.database == "mariadb":
            return self._scalar(
                "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = 'QUESTIONS'"
            )
        return None

    def _count_messages(self) -> int | None:
        """All that the broker received."""
        if self._site.rabbitmq is None:
            return None
        return sum(
            int(n) for n in _RECEIVED.findall(self._site.rabbitmq.ctl("eval", "rabbit_global_counters:overview()."))
        )

    def _scalar(self, statement: str) -> int | None:
        assert self._engine is not None
        with self._engine.begin() as connection:
            result = connection.execute(sa.text(statement))
            return int(result.scalar() or 0) if result.returns_rows else None


def _share(now: int | None, before: int | None, instances: int) -> float | None:
    return None if now is None or before is None else round((now - before) / instances, 2)
