"""`bin/bench site`: 8,000 instances on 500 simulated hosts, from the request to ACTIVE, on a site's real engines.

Three ways to ask for them: one request, or as many of 10,000 as it takes; requests of 100; requests of 1. Each through
the EC2 API, signed, by several clients at once. Then the whole cloud is audited as `pileus audit` does it, what the
agents show included, and all are deleted.

    bin/bench site --hosts 5000 --instances 100000 --ways one,hundreds --contact-loss

`heartbeat_cpu_share` is what all services, the broker and the database take of one core while nothing happens but
heartbeats at their default interval, the simulated agents left out. `longest_transaction_ms` is the oldest open
transaction that was seen, looked for ten times a second. `queue_depth_max` has the most messages that waited in each
queue. `servers_mib` is the memory of broker and database.

`--contact-loss` stops all agents at once for longer than `[controller] host_down_after_s` and lets them go on:
`false_verdicts` counts, each by itself, instances that were anything but UNKNOWN meanwhile, or were not taken for lost
and for running exactly once, and hosts that were given up.

`services_rss_mib` counts what several services share for each of them, `services_pss_mib` once. `slow_transactions`
are those that took longer than a second, as the services logged them.
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

from sqlalchemy import select

from controller.db.models import InstanceEvent
from controller.domain.states import State
from controller.operations.audit.run import run_audit
from controller.operations.cloud import Transaction
from tests.bench.contact import lose_contact
from tests.bench.deployment import Deployment, states_of, wait_until
from tests.bench.ec2_client import Ec2Client
from tests.bench.meters import Meters
from tests.bench.svg import bar_chart
from tests.bench.watcher import Watcher

_CLIENTS = 4
# The least that 25 instances a second need, and time for all to begin.
_DEADLINE_S = 600
_PER_S = 25
_MOST_IN_A_REQUEST = 10_000
_HEARTBEATS_S = 40.0
# Heartbeats that have queued up are read first, and each host's first one after a change is compared with the rows.
_AT_REST_AFTER_S = 45.0


def main(argv: Sequence[str]) -> dict[str, object]:
    """Run the benchmark; the answer is its JSON."""
    parser = argparse.ArgumentParser(prog="bench site", description=__doc__)
    parser.add_argument("--db", choices=("postgresql", "mariadb", "sqlite"), default="postgresql")
    parser.add_argument("--hosts", type=int, default=500)
    parser.add_argument("--instances", type=int, default=8000)
    parser.add_argument("--schedulers", type=int, default=1)
    parser.add_argument("--ways", default="one,hundreds,singles", help="which of one,hundreds,singles")
    parser.add_argument("--contact-loss", action="store_true", help="stop all agents for a while, after the last way")
    options = parser.parse_args(argv)
    with (
        tempfile.TemporaryDirectory(prefix="pileus-bench-") as folder,
        Deployment(Path(folder), options.db, options.hosts, options.schedulers, options.instances) as site,
    ):
        return _measure(site, options.instances, options.ways.split(","), contact_loss=options.contact_loss)


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


def _measure(site: Deployment, instances: int, ways: Sequence[str], *, contact_loss: bool) -> dict[str, object]:
    sizes = {"one": min(instances, _MOST_IN_A_REQUEST), "hundreds": 100, "singles": 1}
    result: dict[str, object] = {"db": site.database, "hosts": site.hosts, "requested": 0, "active": 0, "errors": 0}
    totals: Counter[str] = Counter()
    deletes: list[float] = []
    with Watcher(site) as watcher:
        for way in ways:
            watcher.resume()
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
            watcher.pause()
            result |= _claim_times(site)
            result["rss_mib"], result["services_rss_mib"] = site.rss_mib(), site.services_rss_mib()
            result["pss_mib"], result["servers_mib"] = site.pss_mib(), site.servers_mib()
            result["services_pss_mib"] = round(sum(s for n, s in site.pss_mib().items() if n != "compute"), 1)
            if way == ways[-1]:
                result |= _heartbeats(site)
                if contact_loss:
                    watcher.resume()
                    result |= lose_contact(site, len(ids))
                    watcher.pause()
            report = run_audit(site.cloud)
            result[f"{way}_audit_breaches"] = len(report.violations)
            for violation in report.violations[:10]:
                print(violation)
            watcher.resume()
            meters = Meters(site)
            deletes.append(_delete(site, ids))
            result[f"{way}_delete_cpu_s"] = meters.cpu_s()
            watcher.pause()
    result |= totals
    result |= watcher.result()
    result["slow_transactions"] = site.slow_transactions()
    result["audit_breaches"] = sum(int(str(v)) for k, v in result.items() if k.endswith("_audit_breaches"))
    result["delete_per_s"] = round(statistics.median(deletes), 1)
    return result


def _heartbeats(site: Deployment) -> dict[str, object]:
    """What it costs that nothing happens, once nothing has for a while."""
    time.sleep(_AT_REST_AFTER_S)
    meters = Meters(site)
    begin = time.monotonic()
    time.sleep(_HEARTBEATS_S)
    took_s, cpu_s = time.monotonic() - begin, meters.cpu_s()
    shares = {name: round(s / took_s, 3) for name, s in cpu_s.items() if name != "compute"}
    return {"heartbeat_cpu_share": round(sum(shares.values()), 3), "heartbeat_cpu_shares": shares}


def ask(site: Deployment, instances: int, size: int) -> list[str]:
    """All requests, by some clients at once; answers with the ids."""
    plan = [subnet for subnet, room in site.subnets or [("", instances)] for _ in range(0, room, size)]
    requests = iter(plan[: -(-instances // size)])
    lock = threading.Lock()

    def ask() -> list[str]:
        mine: list[str] = []
        with _client(site) as client:
            while True:
                with lock:
                    subnet = next(requests, None)
                if subnet is None:
                    return mine
                where = {"SubnetId": subnet} if subnet else {}
                mine += client.run(size, ImageId=site.image_id, InstanceType="p1.tiny", **where)

    with ThreadPoolExecutor(_CLIENTS) as pool:
        return [i for f in [pool.submit(ask) for _ in range(_CLIENTS)] for i in f.result()]


def settle(site: Deployment, count: int) -> Counter[str]:
    """Wait until each has ended; answers with how many are in each state."""
    states: Counter[str] = Counter()

    def ended() -> bool:
        site.check_alive()
        states.clear()
        states.update(states_of(site))
        return states[State.ACTIVE] + states[State.ERROR] >= count

    wait_until(ended, _deadline_s(count), lambda: f"{dict(states)}\n{site.log_ends()}", pause_s=_pause_s(count))
    return states


def _deadline_s(count: int) -> float:
    return _DEADLINE_S + count / _PER_S


def _pause_s(count: int) -> float:
    """Between two looks at all rows: they are not to cost more than what is measured."""
    return max(0.02, count / 100_000)


def _delete(site: Deployment, ids: Sequence[str]) -> float:
    """Delete all; answers with the rate from the request until the last one is gone."""
    begin = time.monotonic()
    with _client(site) as client:
        for n in range(0, len(ids), 1000):
            client.call("TerminateInstances", {f"InstanceId.{k}": i for k, i in enumerate(ids[n : n + 1000], 1)})

    def gone() -> bool:
        return set(states_of(site)) <= {State.DELETED}

    count = len(ids)
    wait_until(gone, _deadline_s(count), lambda: f"{dict(states_of(site))}\n{site.log_ends()}", pause_s=_pause_s(count))
    return len(ids) / (time.monotonic() - begin)


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
    query = select(InstanceEvent.instance_id, InstanceEvent.event, InstanceEvent.at).where(
        InstanceEvent.event.in_(("REQUESTED", "PLACED"))
    )
    specs: dict[str, datetime] = {}
    placed: dict[str, datetime] = {}
    for instance_id, event, at in tx.session.execute(query):
        (specs if event == "REQUESTED" else placed)[instance_id] = at
    return [(placed[i] - specs[i]).total_seconds() * 1000 for i in placed]
