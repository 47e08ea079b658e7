"""`pileus network import-leases` and `export-leases`."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from controller.cli.operator import Operator
from controller.domain.messages import HostReported
from controller.operations.hosts import renewal
from tests.labs.cloud import START
from tests.labs.command import Command

GOOD = """\
ip,mac,name,hosts
10.20.0.10,52:54:00:aa:00:10,web-1,h1 h2
10.20.0.11,52:54:00:aa:00:11,,h2
"""


@pytest.fixture
def site(command: Command) -> Command:
    """A cloud with the hosts h1 and h2, and a pinned network called web."""
    operator = Operator(command.state)
    for name in ("h1", "h2"):
        facts = HostReported(name, START.isoformat(), "b", "simulated", vcpus=8, memory_mib=1024, disk_gib=10)
        operator.write(lambda tx, f=facts: renewal.renew_hosts(tx, [f]))  # type: ignore[misc]
    operator.cloud.database.close()
    command("network", "create", "web", "--pinned", "--cidr", "10.20.0.0/24")
    return command


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "leases.csv"
    made.write_text(GOOD)
    return made


def test_from_a_file_and_back(site: Command, file: Path, tmp_path: Path) -> None:
    assert site.json("network", "list")[0]["kind"] == "PINNED"
    preview = site("network", "import-leases", "web", str(file), "--dry-run")
    assert preview.splitlines() == [
        "add     10.20.0.10      52:54:00:aa:00:10 web-1 h1 h2",
        "add     10.20.0.11      52:54:00:aa:00:11 - h2",
        "would be: 2 added, 0 changed, 0 unchanged, 0 removed",
    ]
    assert site("network", "export-leases", "web") == "ip,mac,name,hosts\n"
    assert site("network", "import-leases", "web", str(file)) == "2 added, 0 changed, 0 unchanged, 0 removed\n"
    assert site("network", "export-leases", "web") == GOOD
    again = {"imported": True, "added": 0, "changed": 0, "unchanged": 2, "removed": 0}
    assert site.json("network", "import-leases", "web", str(file)) == again
    out = tmp_path / "out.json"
    assert site("network", "export-leases", "web", "--output", str(out)) == ""
    assert json.loads(out.read_text())[0] == {
        "ip": "10.20.0.10", "mac": "52:54:00:aa:00:10", "name": "web-1", "hosts": ["h1", "h2"],
    }  # fmt: skip
    assert site.json("network", "import-leases", "web", str(out), "--prune") == again


def test_a_dry_run_tells_every_change(site: Command, file: Path) -> None:
    site("network", "import-leases", "web", str(file))
    file.write_text("ip,mac,name,hosts\n10.20.0.10,52:54:00:aa:00:99,db,h2\n10.20.0.12,52:54:00:aa:00:12,,h1\n")
    assert site("network", "import-leases", "web", str(file), "--dry-run", "--prune").splitlines() == [
        "add     10.20.0.12      52:54:00:aa:00:12 - h1",
        "change  10.20.0.10      MAC 52:54:00:aa:00:10 -> 52:54:00:aa:00:99, name web-1 -> db, -h1",
        "remove  10.20.0.11      52:54:00:aa:00:11",
        "would be: 1 added, 1 changed, 0 unchanged, 1 removed",
    ]
    document = site.json("network", "import-leases", "web", str(file), "--dry-run")
    assert (document["imported"], [c["change"] for c in document["changes"]]) == (False, ["add", "change"])
    rows = [f"10.20.0.{n},02:00:00:00:00:{n:02x},,h1" for n in range(20, 200)]
    file.write_text("\n".join(["ip,mac,name,hosts", *rows]))
    lines = site("network", "import-leases", "web", str(file), "--dry-run").splitlines()
    assert (len(lines), lines[100]) == (102, "and 80 more")


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_bad_rows_are_named_and_nothing_is_imported(site: Command, file: Path, dry: tuple[str, ...]) -> None:
    file.write_text(GOOD + "10.20.0.1,01:00:00:00:00:00,\x1b[2J,h9\n" + "x,y,,\n" * 120)
    result = site.result("network", "import-leases", "web", str(file), *dry)
    assert (result.exit_code, result.stdout) == (1, "")
    lines = result.stderr.splitlines()
    assert lines[0].startswith("line 4: 10.20.0.1 is the gateway of 10.20.0.0/24; 01:00:00:00:00:00 is the address of")
    assert lines[-2:] == ["and 21 more", "error: nothing was imported, for 121 rows are bad"]
    assert "\x1b" not in result.stderr
    result = site.result("--output", "json", "network", "import-leases", "web", str(file), *dry)
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert (document["imported"], document["bad"], len(document["rows"])) == (False, 121, 100)
    assert document["rows"][0]["line"] == 4
    assert site("network", "export-leases", "web") == "ip,mac,name,hosts\n"


def test_the_form_is_said_or_seen(site: Command, file: Path) -> None:
    other = file.rename(file.with_name("leases.txt"))
    assert site.result("network", "import-leases", "web", str(other)).exit_code == 2
    assert site.result("network", "import-leases", "web", str(other), "--format", "xml").exit_code == 2
    assert "2 added" in site("network", "import-leases", "web", str(other), "--format", "csv")
    assert site.result("network", "import-leases", "web", str(other), "--format", "json").exit_code == 1
    assert site("network", "export-leases", "web", "--format", "json").startswith("[\n  {")
    assert site.result("network", "import-leases", "web", str(file.with_name("gone.csv"))).exit_code == 2


def test_only_a_pinned_network(site: Command, file: Path, refused: Callable[..., str]) -> None:
    site("network", "create", "pool")
    assert "pooled" in refused(site, "network", "import-leases", "pool", str(file))
    assert "pooled" in refused(site, "network", "export-leases", "pool")
    assert "does not exist" in refused(site, "network", "import-leases", "nothing", str(file))
    assert "is deleted" in site("network", "delete", "web")
