"""One client token from many clients at once, through the API: one reservation, the same answer for all."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.faults import row
from tests.labs.api_site import Site

pytestmark = pytest.mark.functional

CLIENTS = 20


@row(
    fault=f"the same ClientToken from {CLIENTS} clients at once",
    strikes="RunInstances over HTTP, before any of them is answered",
    seen="all are given the same three instances, and there are no others",
)
def test_all_get_the_same_instances(site_on_each_engine: Site) -> None:
    site, line = site_on_each_engine, threading.Barrier(CLIENTS)

    def ask(_: int) -> tuple[str, tuple[str, ...]]:
        client: Any = site.client()
        line.wait(60)
        made = client.run_instances(
            ImageId=site.image, InstanceType="p1.tiny", MinCount=3, MaxCount=3, ClientToken="the same"
        )
        return made["ReservationId"], tuple(sorted(i["InstanceId"] for i in made["Instances"]))

    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = set(pool.map(ask, range(CLIENTS)))
    ((reservation, ids),) = answers
    there = site.client().describe_instances()["Reservations"]
    assert [r["ReservationId"] for r in there] == [reservation]
    assert tuple(sorted(i["InstanceId"] for r in there for i in r["Instances"])) == ids
    assert len(ids) == 3
