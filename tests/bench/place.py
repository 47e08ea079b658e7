"""`bin/bench place`: decisions a second of the pure placement, without a server.

Every instance is placed in nine ways: all in one batch, ten at a time, as doorbells come together, and one at a time;
each without leases (pooled), with one lease pinned to one host for each instance (pinned), and with leases that may go
to any host of a rack of 16. What was decided is counted as taken before the next decision is made. It is the
scheduler's own way: ``place`` on what its cache holds, then ``HostCache.take``.

    bin/bench place --hosts 10000 --instances 100000
    bin/bench place --sweep          500, 2,000 and 10,000 hosts with 8,000 and 100,000 instances

`decisions_per_s` are pinned decisions one at a time, the dearest of the pinned ones. `breaches` counts leases given
twice or to a host that is not of their pin, and hosts with more than they hold. `modes_per_cpu_s` are the same
figures by seconds of CPU: what a machine with nothing else to do would show.
"""

import argparse
import cProfile
import pstats
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from controller.conf.settings import Scheduler
from scheduler.host_cache import HostCache
from scheduler.placement.host_row import HostRow
from scheduler.placement.host_table import HostTable
from scheduler.placement.pinned_leases import PinnedLeases
from scheduler.placement.place import place
from scheduler.placement.policy import policy_for
from scheduler.placement.request import Request
from tests.bench.harness import timed_s
from tests.bench.svg import line_chart

_ONE = Request(count=1, vcpus=2, memory_mib=4096, disk_gib=20, hypervisor="kvm", image="f00d")
_RACK = 16
_SWEEP = [(hosts, instances) for instances in (8_000, 100_000) for hosts in (500, 2_000, 10_000)]
_SIZES = {"tens": 10, "singles": 1}
_KINDS = ("pooled", "pinned", "rack")
_MODES = tuple(f"{kind}_{way}" for kind in _KINDS for way in ("batch", *_SIZES))


def main(argv: Sequence[str]) -> dict[str, object]:
    """Run the benchmark; the answer is its JSON."""
    parser = argparse.ArgumentParser(
        prog="bin/bench place", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hosts", type=int, default=10_000)
    parser.add_argument("--instances", type=int, default=100_000)
    parser.add_argument("--strategy", choices=("spread", "pack"), default="spread")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sweep", action="store_true", help="three numbers of hosts, two of instances")
    parser.add_argument("--profile", action="store_true", help="the dearest functions of pinned single decisions")
    options = parser.parse_args(argv)
    if options.hosts < 1 or options.instances < 1:
        parser.error("at least one host and one instance")
    result = _measure(options, options.hosts, options.instances)
    if options.sweep:
        result["sweep"] = [_measure(options, hosts, instances) for hosts, instances in _SWEEP]
    if options.profile:
        result["profile"] = _profile(_Case(options, options.hosts, min(options.instances, 10_000), "pinned"))
    return result


def chart(result: dict[str, object]) -> str:
    """How decisions a second depend on the number of hosts."""
    runs = result.get("sweep") or [result]
    assert isinstance(runs, list)
    most = max(run["instances"] for run in runs)
    lines = {m: [(r["hosts"], r["modes"][m]) for r in runs if r["instances"] == most] for m in _MODES}
    return line_chart(f"Placement of {most:,} instances", "hosts", "decisions/s", lines, log_x=True, log_y=True)


class _Case:
    """Hosts with some load on them, and as many leases as instances."""

    def __init__(self, options: argparse.Namespace, hosts: int, instances: int, kind: str) -> None:
        self.request = replace(_ONE, count=instances)
        self.policy = policy_for(Scheduler(strategy=options.strategy))
        dice = random.Random(options.seed)
        rows = [_host(n, -(-instances // hosts), dice) for n in range(hosts)]
        self.build_s = timed_s(lambda: self._build(rows, instances, kind))

    def batch(self) -> None:
        """All of them in one decision."""
        self._decide(self.request)

    def by(self, size: int) -> None:
        """One decision for each so many."""
        for done in range(0, self.request.count, size):
            self._decide(replace(self.request, count=min(size, self.request.count - done)))

    def violations(self) -> int:
        """What no placement may do."""
        twice = len(self.lease_ids) - len(set(self.lease_ids))
        strangers = sum(h not in self.pins[i] for h, i in zip(self.host_ids, self.lease_ids, strict=True) if self.pins)
        return twice + strangers + int((self.host_table.free < 0).any(axis=0).sum())

    def _build(self, rows: list[HostRow], instances: int, kind: str) -> None:
        self.host_table = HostTable(rows)
        self.cache = HostCache()
        self.cache.host_table = self.host_table
        self.host_ids: list[str] = []
        self.lease_ids: list[int] = []
        ids = self.host_table.ids
        width = {"pooled": 0, "pinned": 1, "rack": _RACK}[kind]
        self.pins = {i: ids[(h := i % len(ids) // width * width) : h + width] for i in range(instances if width else 0)}
        pairs = [(i, h) for i, hosts in self.pins.items() for h in hosts]
        self.leases = PinnedLeases(self.host_table, pairs) if width else None

    def _decide(self, request: Request) -> None:
        self.cache.begin()
        placement = place(
            request, self.host_table, policy=self.policy, leases=self.leases, rankings=self.cache.rankings
        )
        self.cache.take(placement, request, self.leases)
        self.host_ids += placement.host_ids
        self.lease_ids += placement.lease_ids


def _measure(options: argparse.Namespace, hosts: int, instances: int) -> dict[str, object]:
    modes: dict[str, float] = {}
    by_cpu: dict[str, float] = {}
    figures: Counter[str] = Counter()
    build_s: dict[str, float] = {}
    for kind in _KINDS:
        for way in ("batch", *_SIZES):
            case = _Case(options, hosts, instances, kind)
            work: Callable[[], None] = case.batch if way == "batch" else partial(case.by, _SIZES[way])
            begin_cpu_s = time.process_time()
            took_s = timed_s(work)
            modes[f"{kind}_{way}"] = round(instances / took_s)
            by_cpu[f"{kind}_{way}"] = round(instances / (time.process_time() - begin_cpu_s))
            figures["unplaced"] += instances - len(case.host_ids)
            figures["breaches"] += case.violations() if kind != "pooled" else int((case.host_table.free < 0).any())
            build_s[kind] = round(case.build_s, 3)
    return {
        "hosts": hosts,
        "instances": instances,
        "decisions_per_s": modes["pinned_singles"],
        "unplaced": figures["unplaced"],
        "breaches": figures["breaches"],
        "modes": modes,
        "modes_per_cpu_s": by_cpu,
        "build_s": build_s,
    }


def _profile(case: _Case) -> list[dict[str, object]]:
    """The three functions in which single decisions spend most time themselves."""
    profile = cProfile.Profile()
    profile.runcall(case.by, 1)
    stats = pstats.Stats(profile).get_stats_profile()
    dearest = sorted(stats.func_profiles.items(), key=lambda f: -f[1].tottime)[:3]
    return [
        {"function": f"{f.file_name.rpartition('/')[2]}:{name}", "share": round(f.tottime / stats.total_tt, 3)}
        for name, f in dearest
    ]


def _host(number: int, share: int, dice: random.Random) -> HostRow:
    """One with room for twice its share of the instances, and something on it already."""
    limit = [2 * share * need + 8 * need for need in _ONE.need]
    load = dice.random() * 0.4
    free = [room - int(room * load) for room in limit]
    return HostRow(
        f"host-{number:05}",
        up=True,
        mode="READY",
        hypervisor="kvm",
        architecture="x86_64",
        zone="z1",
        vcpus_limit=limit[0],
        vcpus_free=free[0],
        memory_limit_mib=limit[1],
        memory_free_mib=free[1],
        disk_limit_gib=limit[2],
        disk_free_gib=free[2],
        images="f00d" if number % 2 else "",
    )
