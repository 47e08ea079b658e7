"""`pileus lease list`: who holds an address."""

from typing import Any

import pytest

from controller.domain.states import Event
from controller.operations.hosts import lost_hosts
from controller.operations.instances import actions
from controller.operations.instances.transitions import lock_instances, transition
from tests.labs.cloud import TestCloud, active
from tests.labs.command import Command


def leases(command: Command, *options: str) -> dict[str, Any]:
    return {x["ip"]: x for x in command.json("lease", "list", *options)}


@pytest.fixture
def ips(site: TestCloud) -> list[str]:
    """The addresses of two instances of h1, the second of which was terminated."""
    ids = active(site, 2)
    found = [site.views([i])[0].ip for i in ids]
    site.cloud.write(lambda tx: actions.terminate(tx, None, ids[1:]))
    site.cloud.write(lambda tx: transition(tx, lock_instances(tx, ids[1:]), Event.GONE))
    return found


def test_who_holds_an_address(command: Command, site: TestCloud, ips: list[str]) -> None:
    used, free = ips
    (view,) = [v for v in site.views() if v.ip == used]
    told = leases(command)
    assert {ip: x["state"] for ip, x in told.items()} == {used: "USED", free: "FREE"}
    holder = told[used]
    assert (holder["instance_id"], holder["host_id"]) == (view.id, "h1")
    assert (holder["project_id"], holder["mac"]) == (view.project_id, view.mac)
    assert (told[free]["instance_id"], bool(told[free]["released_at"])) == (None, True)
    assert set(leases(command, "--ip", used)) == {used}
    assert set(leases(command, "--state", "free", "--network", holder["network"])) == {free}
    line = next(line for line in command("lease", "list").splitlines() if used in line)
    assert all(part in line for part in ("USED", view.id, "h1"))
    assert command.result("lease", "list", "--ip", "10.0.0").exit_code == 2
    assert command.json("lease", "list", "--ip", "192.0.2.1") == []


def test_an_address_in_quarantine_names_the_guest_and_the_host(
    command: Command, site: TestCloud, ips: list[str]
) -> None:
    holder = leases(command, "--ip", ips[0])[ips[0]]
    site.clock.advance(3600)
    site.cloud.write(lost_hosts.mark_lost)
    command("host", "remove", "--force", "h1")
    told = leases(command, "--state", "quarantine")
    assert set(told) == {ips[0]}
    assert (told[ips[0]]["instance_id"], told[ips[0]]["host_id"]) == (holder["instance_id"], "h1")


def test_an_address_rests_until_dhcp_has_forgotten_it(command: Command, site: TestCloud, ips: list[str]) -> None:
    object.__setattr__(site.cloud.settings.network, "driver", "linux")
    object.__setattr__(site.cloud.settings.network, "lease_s", 10**9)  # the command has another clock
    (left,) = [v.id for v in site.views() if v.ip == ips[0]]
    site.cloud.write(lambda tx: actions.terminate(tx, None, [left]))
    site.cloud.write(lambda tx: transition(tx, lock_instances(tx, [left]), Event.GONE))
    told = leases(command, "--ip", ips[0])[ips[0]]
    assert (told["state"], bool(told["free_after"])) == ("RESTING", True)
