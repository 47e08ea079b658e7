"""`bin/bench site`: 8,000 instances on 500 simulated hosts, from the request to ACTIVE, on a site's real engines.

Three ways to ask for them: one request; requests of 100; requests of 1. Each through the EC2 API, signed, by several
clients at once. Then the whole cloud is audited, and all are deleted.
"""

import argparse
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from sqlalchemy import func, select

from controller.db.models import Instance, Step
from controller.domain.states import State
from controller.operations.audit.audit import audit
from controller.operations.cloud import Transaction
from tests.bench.deployment import Deployment, wait_until
from tests.bench.ec2_client import Ec2Client
from tests.bench.meters import Meters
from tests.bench.svg import bar_chart

_CLIENTS = 4
_DEADLINE_S = 600


def main(argv: Sequence[str]) -> dict[str, object]:
    """Run the benchmark; the answer is its JSON."""
    parser = argparse.ArgumentParser(prog="bench site", description=__doc__)
    parser.add_argument("--db", choices=("postgresql", "mariadb", "sqlite"), default="postgresql")
    parser.add_argument("--hosts", type=int, default=500)
    parser.add_argument("--instances", type=int, default=8000)
    parser.add_argument("--schedulers", type=int, default=1)
    parser.add_argument("--ways", default="one,hundreds,singles", help="which of one,hundreds,singles")
    options = parser.parse_args(argv)
    with (
        tempfile.TemporaryDirectory(prefix="pileus-bench-") as folder,
        Deployment(Path(folder), options.db, options.hosts, options.schedulers, options.instances) as site,
    ):
        return _measure(site, options.instances, options.ways.split(","))


def chart(result: dict[str, object]) -> str:
    """Instances a second from the request to ACTIVE, each way of asking, and deletes."""
    names = {
        "one_request_per_s": "one request",
        "hundreds_per_s": "requests of 100",
        "singles_per_s": "requests of 1",
        "delete_per_s": "delete",
    }
    bars = {name: float(str(result[key])) for key, name in names.items() if key in result}
    return bar_chart(f"{result['hosts']} hosts, {result['db']}", "instances/s", bars)


def _measure(site: Deployment, instances: int, ways: Sequence[str]) -> dict[str, object]:
    sizes = {"one": instances, "hundreds": 100, "singles": 1}
    result: dict[str, object] = {"db": site.database, "hosts": site.hosts, "requested": 0, "active": 0, "errors": 0}
    totals: Counter[str] = Counter()
    deletes: list[float] = []
    for way in ways:
        meters = Meters(site)
        begin = time.monotonic()
        ids = ask(site, instances, sizes[way])
        accepted_s = time.monotonic() - begin
        states = settle(site, len(ids))
        took_s = time.monotonic() - begin
        totals.update(requested=instances, active=states[State.ACTIVE], errors=states[State.ERROR])
        key = f"{way}_per_s" if way != "one" else "one_request_per_s"
        result[key] = round(states[State.ACTIVE] / took_s, 1)
        result[f"{way}_accepted_s"] = round(accepted_s, 2)
        result[f"{way}_cpu_s"] = cpu_s = meters.cpu_s()
        result[f"{way}_biggest_costs"] = sorted(cpu_s, key=lambda name: -cpu_s[name])[:3]
        result |= {f"{way}_{k}": v for k, v in meters.per_instance(len(ids)).items()}
        result |= _claim_times(site)
        result[f"{way}_audit_breaches"] = _audit(site)
        result["rss_mib"] = site.rss_mib()
        deletes.append(_delete(site, ids))
    result |= totals
    result["audit_breaches"] = sum(int(str(v)) for k, v in result.items() if k.endswith("_audit_breaches"))
    result["delete_per_s"] = round(statistics.median(deletes), 1)
    return result


def ask(site: Deployment, instances: int, size: int) -> list[str]:
    """All requests, by some clients at once; answers with the ids."""
    requests = iter(range(0, instances, size))
    lock = threading.Lock()

    def ask() -> list[str]:
        mine: list[str] = []
        with _client(site) as client:
            while True:
                with lock:
                    if next(requests, None) is None:
                        return mine
                mine += client.run(size, ImageId=site.image_id, InstanceType="p1.tiny", **_subnet(site))

    with ThreadPoolExecutor(_CLIENTS) as pool:
        return [i for f in [pool.submit(ask) for _ in range(_CLIENTS)] for i in f.result()]


def _subnet(site: Deployment) -> dict[str, str]:
    return {"SubnetId": site.subnet_id} if site.subnet_id else {}


def settle(site: Deployment, count: int) -> Counter[str]:
    """Wait until each has ended; answers with how many are in each state."""
    states: Counter[str] = Counter()

    def ended() -> bool:
        site.check_alive()
        states.clear()
        states.update(_states(site))
        return states[State.ACTIVE] + states[State.ERROR] >= count

    wait_until(ended, _DEADLINE_S, lambda: f"{dict(states)}\n{site.log_ends()}")
    return states


def _delete(site: Deployment, ids: Sequence[str]) -> float:
    """Delete all; answers with the rate from the request until the last one is gone."""
    begin = time.monotonic()
    with _client(site) as client:
        for n in range(0, len(ids), 1000):
            client.call("TerminateInstances", {f"InstanceId.{k}": i for k, i in enumerate(ids[n : n + 1000], 1)})

    def gone() -> bool:
        return set(_states(site)) <= {State.DELETED}

    wait_until(gone, _DEADLINE_S, lambda: f"{dict(_states(site))}\n{site.log_ends()}")
    return len(ids) / (time.monotonic() - begin)


def _audit(site: Deployment) -> int:
    return len(site.cloud.read(lambda tx: audit(tx)))


def _states(site: Deployment) -> dict[str, int]:
    query = select(Instance.state, func.count()).group_by(Instance.state)
    return site.cloud.read(lambda tx: {str(row[0]): int(row[1]) for row in tx.session.execute(query)})


def _claim_times(site: Deployment) -> dict[str, float]:
    """How long an instance waited from REQUESTED to its claim, in its own story."""
    waits = site.cloud.read(_waits)
    if not waits:
        return {}
    cuts = statistics.quantiles(waits, n=100) if len(waits) > 1 else waits * 99
    return {"claim_p50_ms": round(cuts[49], 1), "claim_p99_ms": round(cuts[98], 1)}


@contextmanager
def _client(site: Deployment) -> Iterator[Ec2Client]:
    client = Ec2Client(site.url, site.key, site.secret)
    try:
        yield client
    finally:
        client.close()


def _waits(tx: Transaction) -> list[float]:
    """Milliseconds from each instance's REQUESTED to its PLACED."""
    query = select(Step.instance_id, Step.event, Step.at).where(Step.event.in_(("REQUESTED", "PLACED")))
    asked: dict[str, datetime] = {}
    placed: dict[str, datetime] = {}
    for instance_id, event, at in tx.session.execute(query):
        (asked if event == "REQUESTED" else placed)[instance_id] = at
    return [(placed[i] - asked[i]).total_seconds() * 1000 for i in placed]
