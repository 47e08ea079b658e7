"""The audit of a site at work: eight processes, RabbitMQ, PostgreSQL, simulated hosts that are tampered with.

The tests share the site, in this order; each leaves it clean.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from controller.operations.audit.run import AuditOptions, Report, run_audit
from controller.operations.cloud import Cloud
from tests.labs.servers.guarded import wait_until
from tests.labs.servers.postgresql import PostgreSQL
from tests.labs.servers.rabbitmq import RabbitMQ
from tests.labs.site_processes import HOSTS, SiteProcesses

pytestmark = [pytest.mark.functional, pytest.mark.timeout(600)]

COUNT = 200
GHOST = "i-0000000000000dead"
QUICK = AuditOptions(settle_s=1)


@pytest.fixture(scope="module")
def site(
    _rabbitmq: RabbitMQ, _postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SiteProcesses]:
    _rabbitmq.start()
    _postgresql.start()
    url, folder = _postgresql.new_database(), tmp_path_factory.mktemp("site")
    with SiteProcesses(folder, database_url=url, bus_url=_rabbitmq.url, cloud_id="517e0a0d") as made:
        yield made
    _postgresql.drop_database(url)


@pytest.fixture(scope="module")
def auditor(site: SiteProcesses) -> Iterator[Cloud]:
    """What `pileus audit` has in its hands."""
    cloud = Cloud.connect(site.settings)
    yield cloud
    cloud.bus.close()  # type: ignore[attr-defined]
    cloud.database.close()


def audit(site: SiteProcesses, *options: str) -> Any:
    """The operator's command, whatever its exit status says."""
    arguments = ["--output", "json", "audit", "--settle", "1", *options]
    try:
        return json.loads(site.cloud.pileus(*arguments))
    except AssertionError as failed:
        text = str(failed)
        return json.loads(text[text.index("{") : text.rindex("}") + 1])


def at_the_hardware(site: SiteProcesses, statement: str, *values: str) -> None:
    """Change what the simulated hosts are, behind their agents' backs."""
    with closing(sqlite3.connect(site.state / "agent" / "simulated.db", timeout=30)) as db, db:
        assert db.execute(statement, values).rowcount == 1


def test_a_launch_storm_raises_no_false_alarm(site: SiteProcesses, auditor: Cloud) -> None:
    seen: list[Report] = []
    for _ in range(2):
        ids = site.run(COUNT)
        for _ in range(3):
            seen.append(run_audit(auditor, QUICK))
        site.wait_settled()
        for n in range(0, COUNT, 50):
            site.cloud.ec2.terminate_instances(InstanceIds=ids[n : n + 50])
            seen.append(run_audit(auditor, QUICK))
    assert [str(b) for r in seen for b in r.violations] == []
    site.wait_settled()
    site.run(20)
    assert set(site.wait_settled().values()) == {"ACTIVE"}
    assert audit(site) == {"clean": True, "breaches": [], "mended": [], "notes": []}


def test_a_ghost_is_told_and_removed(site: SiteProcesses) -> None:
    at_the_hardware(site, "INSERT INTO simulated_guests VALUES ('host-0003', ?, 'RUNNING', 'none', 1)", GHOST)
    (violation,) = audit(site)["breaches"]
    assert (violation["promise"], violation["subject"]) == (5, GHOST)
    assert violation["what"] == "host-0003 has a domain (running) of it, no row owns it"
    kept = audit(site, "--repair", "--most-removals", "0")
    assert [b["subject"] for b in kept["breaches"]] == [GHOST]
    assert "nothing was removed" in kept["notes"][0]
    mended = audit(site, "--repair")
    assert [b["subject"] for b in mended["mended"]] == [GHOST]
    assert mended["clean"]
    assert audit(site)["clean"]


def test_a_guest_that_stopped_behind_the_agents_back(site: SiteProcesses) -> None:
    victim = sorted(i for i, state in site.wait_settled().items() if state == "ACTIVE")[0]
    at_the_hardware(site, "UPDATE simulated_guests SET power = 'SHUT_OFF' WHERE instance = ?", victim)
    told = audit(site, "--repair")
    # The agent, asked what it has, may have been quicker than the repair: either way the row says what is.
    assert told["clean"], told
    wait_until(lambda: site.wait_settled()[victim] == "STOPPED", deadline_s=60, what=site.logs)
    assert audit(site)["clean"]


def test_a_guest_that_is_lost_cannot_be_mended(site: SiteProcesses) -> None:
    victim = sorted(i for i, state in site.wait_settled().items() if state == "ACTIVE")[1]
    at_the_hardware(site, "DELETE FROM simulated_guests WHERE instance = ?", victim)
    for options in ((), ("--repair",)):
        (violation,) = audit(site, *options)["breaches"]
        assert (violation["promise"], violation["subject"]) == (5, victim)
        assert "neither a domain nor a disk" in violation["what"]
        assert violation["advice"] == "it is lost: terminate it"
    site.cloud.ec2.terminate_instances(InstanceIds=[victim])
    wait_until(lambda: victim not in site.wait_settled(), deadline_s=60, what=site.logs)
    assert audit(site)["clean"]


def test_hosts_that_do_not_answer_are_a_line_each(site: SiteProcesses) -> None:
    site.kill("compute")
    silent = audit(site, "--timeout", "2")["breaches"]
    assert {b["subject"] for b in silent} == {f"host host-{n:04d}" for n in range(1, HOSTS + 1)}
    assert {b["what"] for b in silent} == {"it did not answer within 2 s"}
    site.start("compute")
    site.wait_up()
    wait_until(lambda: audit(site)["clean"], deadline_s=120, what=site.logs)


def test_counters_are_mended_while_the_site_is_at_work(site: SiteProcesses, auditor: Cloud) -> None:
    auditor.write(lambda tx: tx.session.connection().exec_driver_sql("UPDATE hosts SET vcpus_used = vcpus_used + 3"))
    auditor.write(lambda tx: tx.session.connection().exec_driver_sql("UPDATE projects SET used_vcpus = 3"))
    ids = site.run(50)
    report = run_audit(auditor, AuditOptions(repair=True, settle_s=1))
    assert {b.promise for b in report.mended} == {3, 8}
    assert report.violations == []
    assert {s for i, s in site.wait_settled().items() if i in ids} == {"ACTIVE"}
    assert run_audit(auditor, QUICK).violations == []
