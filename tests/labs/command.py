"""The `pileus` command on one cloud."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from click.testing import CliRunner, Result

from controller.cli.main import pileus


@dataclass(frozen=True)
class Command:
    """`pileus` on one cloud."""

    state: Path

    def __call__(self, *arguments: str) -> str:
        """Run it; what it prints. Errors of the domain come out as they are, as ``main`` takes them."""
        result = self.result(*arguments)
        if result.exception:
            raise result.exception
        return result.stdout

    def result(self, *arguments: str) -> Result:
        """Run it, whatever comes of it."""
        before = structlog.get_config()
        # As ``main`` has it: what is logged is not part of what the command prints.
        structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))
        try:
            return CliRunner().invoke(pileus, ["--state", str(self.state), *arguments])
        finally:
            structlog.configure(**before)

    def json(self, *arguments: str) -> Any:
        """Run it with JSON as its output."""
        return json.loads(self("--output", "json", *arguments))
