"""What an operator is told of removed hosts: addresses in quarantine, guests that they show again."""

import json
from collections.abc import Callable

import pytest

from controller.operations.hosts import lost_hosts
from tests.labs.cloud import TestCloud, active, shown
from tests.labs.command import Command


@pytest.fixture
def lost(site: TestCloud) -> list[tuple[str, str]]:
    """Instances of h1, which is down for good, and their addresses."""
    ids = active(site, 2)
    site.clock.advance(3600)
    site.cloud.write(lost_hosts.mark_lost)
    return [(i, site.views([i])[0].ip) for i in ids]


def held(command: Command) -> dict[str, int]:
    found: dict[str, int] = json.loads(command.result("--output", "json", "status").stdout).get("held", {})
    return found


def test_addresses_in_quarantine_until_the_host_is_fenced(
    command: Command, lost: list[tuple[str, str]], refused: Callable[..., str]
) -> None:
    (network,) = command.json("network", "list")
    free = command.json("network", "show", network["id"])["free"]
    assert "is registered" in refused(command, "host", "fence", "h1")
    assert "does not exist" in refused(command, "host", "fence", "h9")
    assert (
        command("host", "remove", "--force", "h1")
        == """\
h1 is removed, and 2 instances with it
2 addresses are in quarantine: once it is surely dead, `pileus host fence h1`
"""
    )
    told = command.json("network", "show", network["id"])
    assert (told["free"], sorted(told["quarantined"])) == (free, sorted(f"{ip} {i} on h1" for i, ip in lost))
    assert all(f"{ip} {i} on h1" in command("network", "show", network["name"]) for i, ip in lost)
    of_host = command.json("host", "show", "h1")
    assert sorted(of_host["quarantined"]) == sorted(f"{ip} {network['name']} {i}" for i, ip in lost)
    assert (of_host["fenced_at"], of_host["strays"]) == (None, [])
    assert held(command) == {"quarantined_addresses": 2}
    assert "quarantined_addresses" in command.result("status").stdout

    assert command("host", "fence", "h1") == "h1 is dead, 2 addresses leave quarantine\n"
    assert command("host", "fence", "h1") == "h1 is dead, 0 addresses leave quarantine\n"
    assert command.json("network", "show", network["id"])["quarantined"] == []
    assert command.json("host", "show", "h1")["fenced_at"]
    assert held(command) == {}


def test_fenced_at_once(command: Command, lost: list[tuple[str, str]]) -> None:
    assert command.result("host", "remove", "--fenced", "h1").exit_code == 2
    assert command("host", "remove", "--force", "--fenced", "h1") == (
        f"h1 is removed, and {len(lost)} instances with it\n"
    )
    assert held(command) == {}


def test_removed_twice(command: Command, lost: list[tuple[str, str]], refused: Callable[..., str]) -> None:
    command("host", "remove", "--force", "h1")
    for again in (("remove", "--force", "--fenced"), ("remove",), ("drain",)):
        said = refused(command, "host", *again, "h1")
        assert "was removed at 20" in said
        assert "`pileus host fence h1`" in said
    assert held(command) == {"quarantined_addresses": len(lost)}


def test_guests_that_it_shows_again(command: Command, site: TestCloud, lost: list[tuple[str, str]]) -> None:
    command("host", "remove", "--force", "h1")
    object.__setattr__(site.cloud.settings.controller, "open_registration", "false")
    object.__setattr__(site.cloud.settings.controller, "stray_removals_per_hour", 0)
    for n in range(2):
        site.heartbeat(epoch=2, sequence=5 + n, guests=shown(*(i for i, _ in lost)), remarks=("it is back",))
    told = command.json("host", "show", "h1")
    assert sorted(told["strays"]) == sorted(
        f"{i} RUNNING: held: too many guests to remove at once or in this hour" for i, _ in lost
    )
    assert (told["remarks"], bool(told["last_seen_at"])) == ("it is back", True)
    assert held(command) == {"quarantined_addresses": 2, "stray_guests": 2}
