"""The metrics for Prometheus: the requests of this process, and the cloud's instances and hosts at each scrape."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from controller.domain.errors import DatabaseUnavailable
from controller.domain.states import State
from controller.operations.cloud import Cloud, Transaction
from controller.operations.hosts.views import count_by_up
from controller.operations.instances.views import count_by_state

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class Metrics:
    """The numbers of one process's API."""

    def __init__(self, cloud: Cloud) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "pileus_api_requests", "Requests by action and HTTP status.", ("action", "status"), registry=self._registry
        )
        self._latency = Histogram(
            "pileus_api_request_seconds", "Time to answer a request.", ("action",),
            buckets=_BUCKETS_S, registry=self._registry,
        )  # fmt: skip
        self._registry.register(_Rows(cloud))

    def count(self, action: str, status: int, seconds: float) -> None:
        """Count a request; ``action`` is one of a bounded number of names."""
        self._requests.labels(action, str(status)).inc()
        self._latency.labels(action).observe(seconds)

    def render(self) -> bytes:
        """The text of a scrape."""
        return generate_latest(self._registry)


class _Rows(Collector):
    """Counts rows at each scrape; without a database only ``pileus_database_up`` is given, as 0."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing: registering must not ask the database."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges of this moment."""
        try:
            instances, hosts = self._cloud.read(_count)
        except DatabaseUnavailable:
            yield GaugeMetricFamily("pileus_database_up", "Whether the database answers.", value=0)
            return
        yield GaugeMetricFamily("pileus_database_up", "Whether the database answers.", value=1)
        by_state = GaugeMetricFamily("pileus_instances", "Instances by state.", labels=("state",))
        for state in sorted({*State, *instances}):
            by_state.add_metric((state,), instances.get(state, 0))
        yield by_state
        by_up = GaugeMetricFamily("pileus_hosts", "Hosts by whether their agents are heard.", labels=("state",))
        for name, up in (("up", True), ("down", False)):
            by_up.add_metric((name,), hosts.get(up, 0))
        yield by_up


def _count(tx: Transaction) -> tuple[dict[str, int], dict[bool, int]]:
    return count_by_state(tx), count_by_up(tx)
