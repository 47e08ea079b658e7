"""What a process keeps in memory for months is what it needs."""

import subprocess
import sys

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from controller.cli.main import pileus
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
