"""Messages are lost, tripled, late, out of order, or nonsense

A relay stands between the publishers and the queues of a running site.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from random import Random

import pytest

from controller.domain.clock import system_clock
from controller.domain.messages import HostReported, host_queue
from controller.domain.states import State
from controller.domain.wire import encode
from controller.operations import dead_letters
from controller.operations.hosts import hosts
from controller.operations.instances import history
from tests.faults import Row, each_row, row
from tests.labs.faults.fault_site import FIRST_INSTANCES
from tests.labs.faults.faulty_relay import Fate, FaultyRelay
from tests.labs.faults.steps import BOTH, POSTGRESQL
from tests.labs.faults.workload import COUNT, Workload
from tests.labs.servers.guarded import wait_until
from tests.labs.site_processes import SiteProcesses

pytestmark = [pytest.mark.functional]

LATE_S = 5.0
# A copy that comes so late comes when the relay goes.
NEVER_S = 3600.0
SETTLED_S = 35.0
# Messages of a kind that have to have been lost before the loss ends.
ENOUGH = 5


@contextmanager
def _meddling(site: SiteProcesses, fate: Fate) -> Iterator[FaultyRelay]:
    queues = ["schedule", "network", "events", "heartbeats", *(host_queue(h) for h in site.hosts())]
    with FaultyRelay(site.settings, queues, fate) as relay:
        yield relay


def _live(workload: Workload) -> None:
    """All that a machine goes through."""
    workload.launch(COUNT)
    workload.prove()
    workload.delete(workload.launched[: COUNT // 2])
    workload.prove()


@row(
    fault="every message arrives three times",
    strikes="all through a launch of 100 and a termination of 50",
    seen="each guest booted once, nothing is claimed twice",
    on=BOTH,
)
def test_tripled(site: SiteProcesses, workload: Workload) -> None:
    with _meddling(site, lambda _: (0, 0, 0)) as relay:
        _live(workload)
    assert len(relay.seen) == 5, relay.seen


@row(
    fault=f"every message arrives up to {LATE_S:g} s late and so out of order, and once more even later",
    strikes="all through a launch of 100 and a termination of 50",
    seen="each guest booted once, no deleted guest comes back",
    on=BOTH,
)
def test_late_and_out_of_order(site: SiteProcesses, workload: Workload) -> None:
    random = Random(1)
    with _meddling(site, lambda _: (random.uniform(0, LATE_S / 2), random.uniform(LATE_S / 2, LATE_S))):
        _live(workload)
        workload.delete(workload.launched[COUNT // 2 :])
    workload.prove()


@row(
    fault="every second message is lost, at random",
    strikes="all through a launch of 100 and a termination of 50",
    seen="the sweep rings again until all is done",
    on=POSTGRESQL,
)
def test_half_is_lost(site: SiteProcesses, workload: Workload) -> None:
    random = Random(2)
    with _meddling(site, lambda _: (0,) if random.random() < 0.5 else ()) as relay:
        _live(workload)
    assert relay.lost


LOST = {
    "ScheduleReservation": "the sweep rings again; all are ACTIVE",
    "WireInstances": "the sweep rings again; all are ACTIVE",
    "ReconcileGuests": "the sweep rings again; all are ACTIVE",
    "GuestsChanged": "the sweep asks again, the agents answer again; all are ACTIVE",
    "HostReported": "hosts are down, what runs is UNKNOWN and runs on; all is ACTIVE again",
}


@each_row(
    "kind",
    {
        k: Row(f"every {k} is lost, nothing else", "all through a launch of 100", seen, POSTGRESQL)
        for k, seen in LOST.items()
    },
)
def test_one_kind_is_lost(site: SiteProcesses, workload: Workload, kind: str) -> None:
    with _meddling(site, lambda k: () if k == kind else (0,)) as relay:
        workload.launch(COUNT)
        wait_until(lambda: relay.lost[kind] >= ENOUGH, deadline_s=60, what=lambda: str(relay.seen))
        if kind == "HostReported":
            wait_until(
                lambda: workload.all_states()[State.UNKNOWN] >= FIRST_INSTANCES,
                deadline_s=30,
                what=lambda: str(relay.seen),
            )
    workload.prove()


@row(
    fault="reports of agents are lost, all of them, and stay lost",
    strikes="all through a launch of 100",
    seen="the heartbeats show the guests: all are ACTIVE while the loss goes on",
    on=POSTGRESQL,
)
def test_reports_are_lost_for_good(site: SiteProcesses, workload: Workload) -> None:
    with _meddling(site, lambda k: () if k == "GuestsChanged" else (0,)) as relay:
        workload.launch(COUNT)
        workload.prove()
    assert relay.lost["GuestsChanged"]


@row(
    fault="heartbeats from before a launch arrive once more, behind half a minute of newer ones",
    strikes="20 instances run that had no guest when the heartbeats were sent",
    seen="each stays ACTIVE; none is shown STOPPED, not for a moment",
)
def test_heartbeats_come_late(site: SiteProcesses, workload: Workload) -> None:
    def fate(kind: str) -> tuple[float, ...]:
        return (0, NEVER_S) if kind == "HostReported" and not workload.launched else (0,)

    with _meddling(site, fate) as relay:
        some = 2 * len(site.hosts())
        wait_until(lambda: relay.seen["HostReported"] >= some, deadline_s=30, what=lambda: str(relay.seen))
        workload.launch(20)
        workload.prove()
        # So long that a heartbeat without a guest is believed: it was no race with the report that it runs.
        settled = system_clock() + timedelta(seconds=SETTLED_S)
        wait_until(lambda: system_clock() > settled, deadline_s=2 * SETTLED_S, what=site.logs)
    _wait_until_events_are_applied(site)
    for instance_id in workload.launched:
        steps = site.rows.read(lambda tx, i=instance_id: history.explain(tx, i).events)  # type: ignore[misc]
        assert [s.event for s in steps] == ["REQUESTED", "PLACED", "RUNNING"]
    workload.prove()


def _wait_until_events_are_applied(site: SiteProcesses) -> None:
    """All that are in the queue now: what comes behind them registers a host."""
    last = HostReported("last", "2026-01-01T00:00:00+00:00", "b", "kvm", 1, 1, 1)
    site.publish("heartbeats", encode(last))
    wait_until(lambda: "last" in site.hosts(), deadline_s=60, what=site.logs)
    site.rows.write(lambda tx: hosts.remove_host(tx, "last"))


POISON = (
    "",
    "no json",
    "[]",
    "null",
    '{"kind": "Nonsense", "version": 1}',
    '{"kind": "GuestsChanged", "host": 7, "reports": "none"}',
    '{"kind": "ScheduleReservation"}',
    "[" * 10000,
    '{"kind": "HostReported", "host": "' + "h" * 100000 + '"}',
)


@row(
    fault=f"{len(POISON)} messages that no service can read, in each of 5 queues",
    strikes="before and after a launch of 100 is rung",
    seen="each is a dead letter, none stops a queue: 100 of 100 ACTIVE",
    on=POSTGRESQL,
)
def test_poison(site: SiteProcesses, workload: Workload) -> None:
    queues = ["schedule", "network", "events", "heartbeats", host_queue(next(iter(site.hosts())))]
    for queue in queues:
        for body in POISON[:4]:
            site.publish(queue, body)
    workload.launch(COUNT)
    for queue in queues:
        for body in POISON[4:]:
            site.publish(queue, body)
    expected = len(POISON) * len(queues)
    wait_until(lambda: len(site.dead_letters()) >= expected, deadline_s=60, what=site.logs)
    letters = [letter.id for letter in site.dead_letters()]
    assert len(letters) == expected
    site.rows.write(lambda tx: dead_letters.discard(tx, letters))
    workload.prove()
