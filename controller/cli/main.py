"""The operator's command, `pileus`."""

import importlib
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import structlog
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

from controller.cli.operator import Operator
from controller.cli.output import printable
from controller.conf.load import SITE_FILE, is_of_a_site
from controller.db.database import unavailable
from controller.domain.errors import CloudError, ConfigurationError, DatabaseUnavailable
from controller.domain.release import RELEASE

# Where each command is found, in the order of the list of them.
_COMMANDS: Mapping[str, str] = {
    "init": "controller.cli.init:init",
    "up": "controller.cli.lifecycle:up",
    "down": "controller.cli.lifecycle:down",
    "status": "controller.cli.status:status",
    "serve": "controller.cli.serve:serve",
    "join": "controller.cli.join:join",
    "db": "controller.cli.db:db",
    "host": "controller.cli.hosts:host",
    "network": "controller.cli.networks:network",
    "lease": "controller.cli.leases:lease",
    "image": "controller.cli.images:image",
    "instance": "controller.cli.instances:instance",
    "instance-type": "controller.cli.instance_types:instance_type",
    "project": "controller.cli.projects:project",
    "user": "controller.cli.users:user",
    "dead-letter": "controller.cli.dead_letters:dead_letter",
    "service": "controller.cli.service:service",
    "audit": "controller.cli.audit:audit",
    "check": "controller.cli.check:check",
}


class LazyGroup(click.Group):
    """Imports a command when it is asked for: a service that runs for months keeps in memory what it needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        """The names, as in the list of them."""
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's
        """The command, or None: there is none of that name."""
        where = _COMMANDS.get(cmd_name)
        if where is None:
            return None
        module, _, name = where.partition(":")
        found = getattr(importlib.import_module(module), name)
        assert isinstance(found, click.Command)
        return found

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; where tables of another release made it fail, say that instead of which column is missing."""
        try:
            return super().invoke(ctx)
        except (DatabaseUnavailable, SQLAlchemyError) as error:
            if isinstance(ctx.obj, Operator) and (reason := ctx.obj.schema_problem()):
                raise ConfigurationError(reason=reason) from error
            raise


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the cloud; else $PILEUS_STATE, else /var/lib/pileus (root) or ~/.local/state/pileus.",
)
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Configuration file; else pileus.conf in the cloud's folder, else /etc/pileus/pileus.conf.",
)
@click.option("--output", type=click.Choice(["table", "json"]), default="table", help="Form of what is printed.")
@click.version_option(RELEASE, prog_name="pileus")
@click.pass_context
def pileus(context: click.Context, state: Path | None, config: Path | None, output: str) -> None:
    """A private cloud: set up, run and look after."""
    if state is None and config is None and is_of_a_site():
        config = SITE_FILE
    context.obj = Operator(state, config, output)


def main() -> None:
    """Run a command; an error of the domain is one line and exit status 1."""
    # What a command has to say it says itself; of the rest only what went wrong.
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    try:
        pileus(prog_name="pileus")
    except CloudError as error:
        _fail(str(error))
    except (OperationalError, InterfaceError) as error:
        _fail(str(unavailable(error)))
    except OSError as error:
        _fail(str(error))


def _fail(message: str) -> None:
    click.echo(f"error: {printable(message)}", err=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
