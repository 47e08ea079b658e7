"""Two releases in one cloud, under load: services and agents are exchanged one after the other, there and back.

The site begins as one of 0.1 - its own code, its own tables - on RabbitMQ and PostgreSQL. Its tables are upgraded
while its services run; then some agents are restarted as current ones, each service is joined by the current one and
leaves, and the other agents follow; and all of it back in that order. So every kind of either release works with every
other of the other one. Users launch, stop, start, reboot and terminate all the while.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.domain.messages import HostAccepted
from controller.domain.release import RELEASE
from controller.domain.wire import VERSION
from tests.labs.background_users import RestlessUsers
from tests.labs.mixed_site import AGENTS, HOSTS_EACH, NEW, OLD, SERVICES, MixedSite
from tests.labs.servers.guarded import wait_until
from tests.labs.servers.postgresql import PostgreSQL
from tests.labs.servers.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.functional, pytest.mark.timeout(1500)]

_EC2 = {"ACTIVE": "running", "STOPPED": "stopped", "DELETED": "terminated"}


@pytest.fixture
def site(rabbitmq: RabbitMQ, postgresql: PostgreSQL, tmp_path: Path) -> Iterator[MixedSite]:
    url = postgresql.new_database()
    with MixedSite(tmp_path, database_url=url, bus_url=rabbitmq.url, cloud_id="517e0110") as made:
        yield made
    postgresql.drop_database(url)


def test_services_and_agents_are_exchanged_under_load(site: MixedSite) -> None:
    with RestlessUsers(site.cloud, launch=4, most=60, seed=14) as users:
        site.pileus(NEW, "db", "upgrade")
        site.wait_working()
        for name in (AGENTS[0], *SERVICES, AGENTS[1]):
            site.exchange(name, OLD, NEW, both=users.wait_for_more)
            users.wait_for_more()
        assert {s["name"]: (s["release"], s["speaks"], s["running"]) for s in site.services()} == dict.fromkeys(
            SERVICES, (RELEASE, VERSION, True)
        )
        assert _releases(site) == {RELEASE: HOSTS_EACH * len(AGENTS)}
    _all_came_true(site, users)
    assert site.pileus(NEW, "audit")  # fails where a promise is broken

    with RestlessUsers(site.cloud, launch=4, most=60, seed=15) as users:
        for name in (AGENTS[0], *reversed(SERVICES), AGENTS[1]):
            site.exchange(name, NEW, OLD, both=users.wait_for_more)
            users.wait_for_more()
        assert site.services() == []
    _all_came_true(site, users)
    assert site.pileus(OLD, "audit")

    site.start("controller", NEW)
    site.stop("controller", OLD)
    wait_until(lambda: _releases(site) == {"": HOSTS_EACH * len(AGENTS)}, deadline_s=60, what=site.logs)
    site.pileus(NEW, "service", "require", RELEASE)
    assert site.sql("SELECT oldest_release FROM cloud") == [(RELEASE,)]


def _releases(site: MixedSite) -> dict[str, int]:
    return Counter(release for (release,) in site.sql("SELECT release FROM hosts"))


def _all_came_true(site: MixedSite, users: RestlessUsers) -> None:
    """What was accepted is so; nothing failed, no host was lost, no message set aside, no guest booted unasked."""
    users.check()

    def settled() -> bool:
        site.assert_alive()
        return set(site.states().values()) <= _EC2.keys() | {"ERROR"}

    wait_until(settled, deadline_s=240, what=lambda: f"{Counter(site.states().values())}\n{site.logs()}")
    states = site.states()
    found = {i: _EC2.get(states.get(i, ""), states.get(i, "lost")) for i in users.expected}
    wrong = {i: (wanted, found[i]) for i, wanted in users.expected.items() if found[i] != wanted}
    assert wrong == {}, f"{_stories(site, wrong)}\n{site.logs()}"
    failed = [i for i, state in states.items() if state == "ERROR"]
    assert failed == [], _stories(site, failed)
    assert len(users.expected) >= 60
    assert site.sql("SELECT instance_id FROM steps WHERE event = 'HOST_LOST'") == [], site.logs()
    assert [
        letter for letter in site.sql("SELECT queue, reason, body FROM dead_letters") if not _came_late(*letter)
    ] == []
    boots = site.boots()
    assert set(boots) == {i for i, state in states.items() if state != "DELETED"}
    calm = boots.keys() - users.disturbed
    assert {i: boots[i] for i in calm if i in users.expected and boots[i] != 1} == {}


def _came_late(queue: str, _reason: str, body: str) -> bool:
    """Whether it is an answer that an agent had asked for when it was exchanged for one of 0.1, which does not know it
    and has asked for nothing."""
    return queue.startswith("compute.") and json.loads(body)["kind"] == HostAccepted.KIND


def _stories(site: MixedSite, ids: object) -> str:
    chosen = list(ids)[:3]  # type: ignore[call-overload]
    query = "SELECT at, event, state, detail FROM steps WHERE instance_id = :id ORDER BY id"
    return "\n".join(f"{i}: {site.sql(query, id=i)}" for i in chosen)
