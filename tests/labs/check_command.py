"""A site of simulated hosts and `pileus check` on it."""

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from controller.cli.configuration_file import changed_text
from controller.cli.main import pileus


def set_up(folder: Path, database_url: str, bus_url: str) -> Path:
    """The configuration file of a new site of simulated hosts."""
    file = folder / "pileus.conf"
    file.write_text(
        f"[DEFAULT]\nstate_dir = {folder}\ncloud_id = 5117e001\n[network]\ndriver = none\n"
        f"[compute]\ndriver = simulated\n[database]\nurl = {database_url}\n[bus]\nurl = {bus_url}\n"
    )
    invoke(file, "--state", str(folder), "init")
    return file


def invoke(file: Path, *arguments: str) -> Any:
    return CliRunner().invoke(pileus, list(arguments), catch_exceptions=False)


def check(file: Path, *arguments: str, **changes: object) -> dict[str, tuple[str, str]]:
    """Status and what was seen, by item; ``changes`` are section__name=value."""
    values = {tuple(name.split("__")): value for name, value in changes.items()}
    changed = file.with_name("changed.conf")
    changed.write_text(changed_text(file.read_text(), values))  # type: ignore[arg-type]
    result = invoke(changed, "--config", str(changed), "--output", "json", "check", *arguments)
    items = {i["name"]: (i["status"], i["seen"]) for i in json.loads(result.stdout)}
    assert result.exit_code == int(any(status == "fail" for status, _ in items.values()))
    return items


def advice(file: Path, name: str) -> str:
    """The remedy that is told for an item."""
    items = json.loads(invoke(file, "--config", str(file), "--output", "json", "check").stdout)
    (found,) = [i["advice"] for i in items if i["name"] == name]
    return str(found)
