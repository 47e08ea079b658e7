"""`bin/bench list`: DescribeInstances of 8,000 instances over HTTP, XML and all: whole, paged, by 4 clients at once."""

import argparse
import re
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.bench.deployment import Deployment
from tests.bench.ec2_client import Ec2Client
from tests.bench.meters import Meters
from tests.bench.site import ask, settle
from tests.bench.svg import bar_chart

_TOKEN = re.compile(rb"<nextToken>([^<]+)</nextToken>")
_PAGE = 100


def main(argv: Sequence[str]) -> dict[str, object]:
    """Run the benchmark; the answer is its JSON."""
    parser = argparse.ArgumentParser(prog="bench list", description=__doc__)
    parser.add_argument("--db", choices=("postgresql", "mariadb", "sqlite"), default="postgresql")
    parser.add_argument("--instances", type=int, default=8000)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args(argv)
    with (
        tempfile.TemporaryDirectory(prefix="pileus-bench-") as folder,
        Deployment(Path(folder), options.db, hosts=100) as site,
    ):
        settle(site, len(ask(site, options.instances, options.instances)))
        client = Ec2Client(site.url, site.key, site.secret)
        _whole(client)
        meters = Meters(site)
        whole = [_timed(lambda: _whole(client)) for _ in range(options.rounds)]
        statements = meters.statements()
        pages = _page_times(client)
        together = [_timed(lambda: _at_once(site, options.clients)) for _ in range(3)]
        size = len(_whole(client))
        client.close()
        return {
            "db": site.database,
            "instances": options.instances,
            "all_s": round(statistics.median(whole), 3),
            "all_bytes": size,
            "page_ms": round(statistics.median(pages) * 1000, 1),
            "page_p99_ms": round(statistics.quantiles(pages, n=100)[98] * 1000, 1),
            "statements": None if statements is None else round(statements / options.rounds, 1),
            "clients": options.clients,
            "clients_all_s": round(statistics.median(together), 3),
            "rss_mib": site.rss_mib(),
        }


def chart(result: dict[str, object]) -> str:
    """How long the whole list takes, alone and for several at once, and a page of it."""
    bars = {
        "whole": float(str(result["all_s"])) * 1000,
        f"whole, {result['clients']} at once": float(str(result["clients_all_s"])) * 1000,
        "a page of 100": float(str(result["page_ms"])),
    }
    return bar_chart(f"DescribeInstances of {result['instances']}, {result['db']}", "ms", bars)


def _whole(client: Ec2Client) -> bytes:
    return client.call("DescribeInstances", {})


def _page_times(client: Ec2Client) -> list[float]:
    """Seconds for each page of a walk through all of them."""
    times, token = [], ""
    while True:
        more: dict[str, str | int] = {"MaxResults": _PAGE} | ({"NextToken": token} if token else {})
        begin = time.monotonic()
        answer = client.call("DescribeInstances", more)
        times.append(time.monotonic() - begin)
        found = _TOKEN.search(answer)
        if found is None:
            return times
        token = found[1].decode()


def _at_once(site: Deployment, clients: int) -> None:
    line = threading.Barrier(clients)

    def one(_: int) -> None:
        client = Ec2Client(site.url, site.key, site.secret)
        line.wait(30)
        _whole(client)
        client.close()

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(one, range(clients)))


def _timed(work: Callable[[], object]) -> float:
    begin = time.monotonic()
    work()
    return time.monotonic() - begin
