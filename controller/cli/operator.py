"""What every command is given: which cloud, and how to print."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import click
from sqlalchemy.exc import SQLAlchemyError

from controller.cli.late_bus import LateBus
from controller.conf import Settings, load_settings
from controller.conf.load import FILE_NAME, default_state_dir
from controller.db.database import Database
from controller.domain.errors import CloudError, ConfigurationError
from controller.operations.cloud import Cloud, Transaction
from controller.operations.database import schema

T = TypeVar("T")


@dataclass
class Operator:
    """One cloud; nothing is read or opened before a command asks for it.

    ``state_dir`` None: the one that ``config`` names, or the default.
    """

    state_dir: Path | None = None
    config: Path | None = None
    output: str = "table"

    @property
    def folder(self) -> Path:
        """Below which the cloud lives, as far as it is known without its file."""
        return (self.state_dir or default_state_dir()).absolute()

    @property
    def file(self) -> Path:
        """The configuration file."""
        return (self.config or self.folder / FILE_NAME).absolute()

    @property
    def exists(self) -> bool:
        """Whether a cloud was set up here."""
        return self.file.is_file()

    def load(self, overrides: Mapping[tuple[str, str], Any] | None = None) -> Settings:
        """The settings of this cloud, some of them overridden.

        Raises:
            ConfigurationError: there is none here, or its file is wrong.
        """
        if not self.exists:
            raise ConfigurationError(reason=f"no cloud here: {self.file} does not exist (`pileus init` makes it)")
        settings = load_settings(self.file, overrides)
        if self.config is not None and self.state_dir is None:
            return settings
        # The folder may have been moved, or be named by another path than at first.
        return replace(settings, general=replace(settings.general, state_dir=str(self.folder)))

    @property
    def arguments(self) -> list[str]:
        """What another ``pileus`` must be told to mean the same cloud."""
        named = [] if self.config is None else ["--config", str(self.file)]
        return [*named, *([] if named and self.state_dir is None else ["--state", str(self.folder)])]

    @cached_property
    def settings(self) -> Settings:
        """The settings of this cloud. Raises ConfigurationError."""
        return self.load()

    @property
    def is_host(self) -> bool:
        """Whether this machine is nothing but a host of a site: a broker is named, and no database."""
        named = self.settings.database.url or (self.settings.state_dir / "pileus.db").exists()
        return not (self.settings.embedded_bus or named)

    def require_database(self) -> None:
        """Make no empty database where there is none: with one, a host cannot join again.

        Raises:
            ConfigurationError: this machine is a host.
        """
        if self.is_host:
            here = "here there are `pileus status` and `pileus check compute`"
            reason = f"{self.file} names no database, as a host's: do this on a control machine; {here}"
            raise ConfigurationError(reason=reason)

    @cached_property
    def cloud(self) -> Cloud:
        """The cloud's engines. Raises ConfigurationError: this machine is a host, and has none."""
        self.require_database()
        return Cloud(self.settings, Database(self.settings), LateBus(self.settings))

    def read(self, operation: Callable[[Transaction], T]) -> T:
        """Run an operation that only looks."""
        return self.cloud.read(operation)

    def write(self, operation: Callable[[Transaction], T]) -> T:
        """Run an operation that changes rows.

        A doorbell of the embedded bus stays in this process, where no service listens: the sweep finds the rows.

        Raises:
            ConfigurationError: this release cannot work with the tables, or no longer may.
        """
        if reason := self.cloud.read(schema.problem):
            raise ConfigurationError(reason=reason)
        return self.cloud.write(operation)

    def schema_problem(self) -> str:
        """Why a command failed, if that was because of the tables; empty too where they cannot be asked."""
        try:
            return self.cloud.read(schema.problem)
        except (CloudError, SQLAlchemyError):
            return ""


pass_operator = click.make_pass_decorator(Operator)


def _set_output(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.find_object(Operator).output = value  # type: ignore[union-attr]


output_option = click.option(
    "--output",
    type=click.Choice(["table", "json"]),
    expose_value=False,
    callback=_set_output,
    help="Form of what is printed.",
)
