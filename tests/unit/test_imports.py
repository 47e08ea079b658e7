"""What a process keeps in memory for months is what it needs."""

import subprocess
import sys
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from click.testing import CliRunner

from controller.cli.main import _COMMANDS, pileus
from controller.operations.database import schema

_SERVES = "import sys, controller.cli.main, controller.cli.serve, {}; print([m for m in {} if m in sys.modules])"


@pytest.mark.parametrize(
    "service",
    ["api.service", "scheduler.service", "network.service", "controller.workers.service", "compute_agent.service"],
)
def test_a_service_leaves_out_what_only_commands_need(service: str) -> None:
    unneeded = ["alembic", "mako", "controller.cli.check", "controller.cli.images", "controller.cli.networks"]
    words = [sys.executable, "-c", _SERVES.format(service, unneeded)]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip() == "[]"


_HEAVY = ("alembic", "flask", "kombu", "libvirt", "numpy", "oslo_config", "rich", "sqlalchemy", "structlog")
_RUNS = (
    "import sys; from click.testing import CliRunner; from controller.cli.main import _COMMANDS, pileus;"
    " print(CliRunner().invoke(pileus, sys.argv[2:]).exit_code, [m for m in sys.argv[1].split() if m in sys.modules])"
)


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_help_and_version_import_nothing_heavy(argument: str) -> None:
    words = [sys.executable, "-c", _RUNS, " ".join(_HEAVY), argument]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip() == "0 []"


def test_a_command_that_sends_nothing_imports_no_bus(tmp_path: Path) -> None:
    assert CliRunner().invoke(pileus, ["--state", str(tmp_path), "init", "--simulated", "1"]).exit_code == 0
    unneeded = "alembic flask kombu libvirt numpy"
    words = [sys.executable, "-c", _RUNS, unneeded, "--state", str(tmp_path), "instance", "list"]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip() == "0 []"


def test_the_list_of_commands_says_what_each_command_says() -> None:
    context = pileus.make_context("pileus", [], resilient_parsing=True)
    for name, where in _COMMANDS.items():
        command = pileus.get_command(context, name)
        assert command
        assert " ".join((command.help or "").split()).startswith(where.summary.removesuffix(".")), name


def test_completion_knows_the_commands() -> None:
    context = pileus.make_context("pileus", [], resilient_parsing=True)
    found = {item.value: item.help for item in pileus.shell_complete(context, "inst")}
    assert found == {
        "instance": "Every project's virtual machines.",
        "instance-type": "The sizes that instances come in.",
    }


def test_every_command_is_found_under_its_own_name() -> None:
    context = pileus.make_context("pileus", [], resilient_parsing=True)
    names = pileus.list_commands(context)
    found = [pileus.get_command(context, name) for name in names]
    assert "serve" in names
    assert [c.name for c in found if c] == names
    assert pileus.get_command(context, "nothing") is None


def test_the_files_of_the_migrations_are_named_by_their_revisions() -> None:
    config = Config()
    config.set_main_option("script_location", "migrations:")
    assert schema.revisions() == tuple(r.revision for r in ScriptDirectory.from_config(config).walk_revisions())
