"""Commands on a machine that is nothing but a host of a site: it has a broker, no database."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from controller.cli.health_file import health_file
from controller.conf import load_settings
from controller.health import Problem
from tests.labs.command import Command


@pytest.fixture
def host(tmp_path: Path) -> Command:
    state = tmp_path / "state"
    state.mkdir()
    (state / "pileus.conf").write_text(
        f"[DEFAULT]\nstate_dir = {state}\ncloud_id = 5117e001\n[bus]\nurl = amqp://guest:guest@127.0.0.1:1//\n"
    )
    return Command(state)


@pytest.mark.parametrize(
    "arguments", ["host list", "audit", "image prune", "db upgrade", "db current", "db downgrade base --yes", "up"]
)
def test_what_needs_the_database_is_for_a_control_machine(
    host: Command, arguments: str, refused: Callable[..., str]
) -> None:
    said = refused(host, *arguments.split())
    assert "names no database" in said
    assert "control machine" in said
    assert not (host.state / "pileus.db").exists()  # with one, it could not join again


def test_status_is_of_its_agent(host: Command) -> None:
    def status() -> tuple[int, dict[str, object]]:
        result = host.result("--output", "json", "status")
        return result.exit_code, json.loads(result.stdout)

    code, told = status()
    assert (code, told["up"], told["healthy"], list(told["problems"])) == (1, False, False, ["bus"])  # type: ignore[call-overload]
    with health_file(load_settings(host.state / "pileus.conf"), ["compute"]) as file:
        file.write([Problem("compute", "no hypervisor")], ready=True)
        _, told = status()
    assert (told["up"], told["services"]) == (True, ["compute"])
    assert told["problems"]["compute"] == "no hypervisor"  # type: ignore[index]
    assert "Connection refused" in told["problems"]["bus"]  # type: ignore[index]
    assert not (host.state / "pileus.db").exists()
