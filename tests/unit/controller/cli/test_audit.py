"""`pileus audit`: exit status and form; what it finds is tested with the operation."""

import json

from sqlalchemy import create_engine, text

from tests.labs.cloud import TestCloud
from tests.labs.command import Command


def test_a_new_cloud_is_clean(command: Command) -> None:
    assert command("audit") == "clean\n"
    found = command.json("audit")
    assert (found["clean"], found["breaches"], found["mended"]) == (True, [], [])
    (note,) = found["notes"]
    assert "only the database" in note


def test_hosts_that_were_not_looked_at_are_not_clean(command: Command, site: TestCloud) -> None:
    result = command.result("audit")
    assert (result.exit_code, result.stdout) == (
        1,
        "promise 5: cloud: it is not running here: 1 host, DHCP and firewall were not looked at; "
        "`pileus up`, or audit the rows alone: --database-only\n",
    )
    assert json.loads(command.result("audit", "--output", "json").stdout)["clean"] is False
    assert command("audit", "--database-only") == "clean\n"


def test_the_database_alone(command: Command) -> None:
    (note,) = command.json("audit", "--database-only")["notes"]
    assert "only the database" in note


def test_a_breach_is_one_line_and_status_1(command: Command) -> None:
    engine = create_engine(f"sqlite:///{command.state / 'pileus.db'}")
    with engine.begin() as connection:
        connection.execute(text("UPDATE projects SET used_vcpus = 3"))
    engine.dispose()
    result = command.result("audit")
    assert result.exit_code == 1
    assert result.stdout.startswith("promise 8: project ")
    assert len(result.stdout.splitlines()) == 1
    told = command.result("audit", "--output", "json")
    assert told.exit_code == 1
    (violation,) = json.loads(told.stdout)["breaches"]
    assert set(violation) == {"promise", "what", "subject", "advice", "remedy"}


def test_a_repair_says_what_it_mended(command: Command) -> None:
    engine = create_engine(f"sqlite:///{command.state / 'pileus.db'}")
    with engine.begin() as connection:
        connection.execute(text("UPDATE projects SET used_vcpus = 3"))
    engine.dispose()
    told = command("audit", "--repair", "--settle", "0").splitlines()
    said = [line for line in told if " audit mends " not in line]  # the log, which `main` sends elsewhere
    assert said[0].startswith("mended: promise 8: project ")
    assert "; set the project's counters to what is there" in said[0]
    assert said[1:] == ["clean"]
    assert command("audit") == "clean\n"
