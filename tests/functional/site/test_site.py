"""A site of eight processes on RabbitMQ and PostgreSQL, or MariaDB: whatever part goes, what was accepted comes true.

The tests share the site, in this order.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from controller.domain.messages import HostReported
from controller.domain.wire import encode
from tests.labs.servers.guarded import wait_until
from tests.labs.servers.mariadb import MariaDB
from tests.labs.servers.postgresql import PostgreSQL
from tests.labs.servers.rabbitmq import RabbitMQ
from tests.labs.site_processes import SERVICES, SiteProcesses

pytestmark = [pytest.mark.functional, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def site(
    _rabbitmq: RabbitMQ, _postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SiteProcesses]:
    _rabbitmq.start()
    _postgresql.start()
    url, folder = _postgresql.new_database(), tmp_path_factory.mktemp("site")
    with SiteProcesses(folder, database_url=url, bus_url=_rabbitmq.url, cloud_id="517e0001") as made:
        yield made
    _postgresql.drop_database(url)


def test_a_hundred_instances(site: SiteProcesses) -> None:
    _a_hundred(site)


def test_a_console_is_read_over_the_broker(site: SiteProcesses) -> None:
    machine = site.cloud.ec2.describe_instances()["Reservations"][0]["Instances"][0]
    output = site.cloud.ec2.get_console_output(InstanceId=machine["InstanceId"])["Output"]
    assert output == f"GUEST-UP {machine['PrivateIpAddress']}\n"


def test_requests_are_accepted_while_the_broker_is_away(site: SiteProcesses, _rabbitmq: RabbitMQ) -> None:
    before = site.wait_settled()
    old = next(iter(before))
    _rabbitmq.stop()
    try:
        new = site.run(20)
        site.cloud.ec2.terminate_instances(InstanceIds=[old])
        assert {site.cloud.machine(i)["State"]["Name"] for i in new} == {"pending"}
        assert site.cloud.machine(old)["State"]["Name"] == "shutting-down"
        with pytest.raises(ClientError, match="Unavailable"):
            site.cloud.ec2.get_console_output(InstanceId=next(i for i in before if i != old))
        assert "bus" in _unwell(site)
    finally:
        _rabbitmq.start()
    after = site.wait_settled()
    assert set(after) == {*before, *new} - {old}
    assert set(after.values()) == {"ACTIVE"}
    assert site.cloud.ec2.get_console_output(InstanceId=new[0])["Output"].startswith("GUEST-UP")


def _unwell(site: SiteProcesses) -> str:
    with pytest.raises(AssertionError) as failed:
        site.cloud.pileus("status")
    return str(failed.value)


def test_an_unreadable_message_is_a_dead_letter(site: SiteProcesses) -> None:
    site.publish("schedule", '{"kind": "Nonsense", "version": 1}')
    wait_until(lambda: len(site.dead_letters()) == 1, deadline_s=60, what=site.logs)
    (letter,) = site.dead_letters()
    (listed,) = site.cloud.pileus_json("dead-letter", "list")
    assert (listed["id"], listed["queue"]) == (letter.id, "schedule")
    assert "Nonsense" in listed["reason"]
    site.cloud.pileus("dead-letter", "replay", str(letter.id))
    # It is no better for being read again: it stays, and waits for nothing.
    wait_until(lambda: [d.replay_at for d in site.dead_letters()] == [None], deadline_s=60, what=site.logs)
    site.cloud.pileus("dead-letter", "discard", str(letter.id))
    assert site.dead_letters() == []
    assert "does not exist" in site.cloud.pileus_fails("dead-letter", "replay", str(letter.id))


def test_a_dead_letter_is_replayed(site: SiteProcesses) -> None:
    report = HostReported(
        host="stray", at="2026-01-01T00:00:00+00:00", boot_id="b", hypervisor="kvm", vcpus=1, memory_mib=1, disk_gib=1
    )
    site.publish("schedule", encode(report))  # which is not where it belongs
    wait_until(lambda: len(site.dead_letters()) == 1, deadline_s=60, what=site.logs)
    (letter,) = site.dead_letters()
    assert "stray" not in site.hosts()
    site.cloud.pileus("dead-letter", "replay", str(letter.id))
    wait_until(lambda: site.dead_letters() == [], deadline_s=60, what=site.logs)

    wait_until(lambda: "stray" in site.hosts(), deadline_s=60, what=site.logs)
    site.cloud.pileus("host", "remove", "stray")


@pytest.mark.parametrize("name", SERVICES)
def test_a_killed_process_loses_nothing(site: SiteProcesses, name: str) -> None:
    before = site.wait_settled()
    old = sorted(before)[:5]
    new = site.run(10)
    site.cloud.ec2.terminate_instances(InstanceIds=old)
    site.kill(name)
    assert not site.processes[name].running
    site.start(name)
    site.wait_up()
    after = site.wait_settled()
    assert set(after) == {*before, *new} - set(old)
    assert set(after.values()) == {"ACTIVE"}, site.logs()
    _hosts_hold_what_is_there(site, len(after))


def test_all_killed_at_once(site: SiteProcesses) -> None:
    before = site.wait_settled()
    new = site.run(20)
    for name in SERVICES:
        site.kill(name)
    for name in SERVICES:
        site.start(name)
    site.wait_up()
    after = site.wait_settled()
    assert set(after) == {*before, *new}
    assert set(after.values()) == {"ACTIVE"}, site.logs()
    site.cloud.ec2.terminate_instances(InstanceIds=list(after))
    assert site.wait_settled() == {}
    _hosts_hold_what_is_there(site, 0)


def test_on_mariadb(_rabbitmq: RabbitMQ, mariadb: MariaDB, tmp_path: Path) -> None:
    url = mariadb.new_database()
    with SiteProcesses(tmp_path, database_url=url, bus_url=_rabbitmq.url, cloud_id="517e0002") as site:
        ids = _a_hundred(site)
        site.cloud.ec2.terminate_instances(InstanceIds=ids)
        assert site.wait_settled() == {}
        _hosts_hold_what_is_there(site, 0)
    mariadb.drop_database(url)


def _a_hundred(site: SiteProcesses) -> list[str]:
    ids = site.run(100)
    states = site.wait_settled()
    assert Counter(states[i] for i in ids) == {"ACTIVE": 100}, site.logs()
    _hosts_hold_what_is_there(site, len(states))
    return ids


def _hosts_hold_what_is_there(site: SiteProcesses, count: int) -> None:
    assert sum(site.hosts().values()) == count
