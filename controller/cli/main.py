"""The operator's command, `pileus`. Help, completion and the version import nothing but click: they answer at once."""

import importlib
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click
from click.shell_completion import CompletionItem

from controller.domain.release import RELEASE


class _Where(NamedTuple):
    """Where a command is found, and the first sentence of its help, so that a list of them imports none of them."""

    module: str
    name: str
    summary: str


_COMMANDS: Mapping[str, _Where] = {
    "init": _Where("init", "init", "Set up a cloud: configuration, keys, database, first project and user, cloudrc."),
    "up": _Where("lifecycle", "up", "Start the whole cloud on this machine and wait until it answers."),
    "down": _Where("lifecycle", "down", "Stop the cloud; the guests go on running, and `pileus up` finds them again."),
    "status": _Where("status", "status", "Show services, hosts and instances; on a host, its agent."),
    "serve": _Where("serve", "serve", "Run one service, or all of them in one process, in the foreground."),
    "join": _Where("join", "join", "Make this machine a host of the cloud at URL."),
    "db": _Where("db", "db", "The database's tables."),
    "host": _Where("hosts", "host", "The machines that carry the guests."),
    "network": _Where("networks", "network", "The projects' networks."),
    "lease": _Where("leases", "lease", "The addresses that instances hold, held, or may hold."),
    "image": _Where("images", "image", "The catalogue of images."),
    "instance": _Where("instances", "instance", "Every project's virtual machines."),
    "instance-type": _Where("instance_types", "instance_type", "The sizes that instances come in."),
    "project": _Where("projects", "project", "Accounts and their quotas."),
    "user": _Where("users", "user", "People and programs, and their keys."),
    "dead-letter": _Where("dead_letters", "dead_letter", "Messages that no handler could carry out."),
    "service": _Where("service", "service", "The services that run, and their releases."),
    "audit": _Where("audit", "audit", "Check the promises of the cloud while it runs: rows, hosts, DHCP, firewall."),
    "check": _Where("check", "check", "Verify the configuration against database, broker and this machine."),
}


class LazyGroup(click.Group):
    """Imports a command when it is run: a service that runs for months keeps in memory what it needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        """The names, sorted."""
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's
        """The command, or None: there is none of that name."""
        where = _COMMANDS.get(cmd_name)
        if where is None:
            return None
        found = getattr(importlib.import_module(f"controller.cli.{where.module}"), where.name)
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands in the help."""
        limit = formatter.width - 6 - max(map(len, _COMMANDS))
        with formatter.section("Commands"):
            formatter.write_dl([(name, _summary(name, limit)) for name in self.list_commands(ctx)])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The commands and options that begin so."""
        names = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        return [
            *(CompletionItem(name, help=_summary(name)) for name in names),
            *click.Command.shell_complete(self, ctx, incomplete),
        ]

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; where tables of another release made it fail, say that instead of which column is missing."""
        try:
            return super().invoke(ctx)
        except _schema_errors() as error:
            from controller.cli.operator import Operator
            from controller.domain.errors import ConfigurationError

            if isinstance(ctx.obj, Operator) and (reason := ctx.obj.schema_problem()):
                raise ConfigurationError(reason=reason) from error
            raise


def _summary(name: str, limit: int = 45) -> str:
    return click.Command(name, help=_COMMANDS[name].summary).get_short_help_str(limit)


def _schema_errors() -> tuple[type[Exception], ...]:
    """Asked for once something has failed: SQLAlchemy is imported by then, or the failure is slow anyway."""
    from sqlalchemy.exc import SQLAlchemyError

    from controller.domain.errors import DatabaseUnavailable

    return DatabaseUnavailable, SQLAlchemyError


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
    from controller.cli.operator import Operator
    from controller.conf.load import SITE_FILE, is_of_a_site

    if callable(context.obj):
        context.obj()
    if state is None and config is None and is_of_a_site():
        config = SITE_FILE
    context.obj = Operator(state, config, output)


def main() -> None:
    """Run a command; an error of the domain is one line and exit status 1."""
    try:
        pileus(prog_name="pileus", obj=_log_errors_only)
    except Exception as error:
        from sqlalchemy.exc import InterfaceError, OperationalError

        from controller.db.database import unavailable
        from controller.domain.errors import CloudError

        if isinstance(error, OperationalError | InterfaceError):
            error = unavailable(error)
        if not isinstance(error, CloudError | OSError):
            raise
        _fail(str(error))


def _log_errors_only() -> None:
    """What a command has to say it says itself. Called before a command of this process, not for help."""
    import structlog

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _fail(message: str) -> None:
    from controller.cli.output import printable

    click.echo(f"error: {printable(message)}", err=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
