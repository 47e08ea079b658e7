"""The operator's command, `pileus`."""

import logging
import sys
from pathlib import Path

import click
import structlog
from sqlalchemy.exc import InterfaceError, OperationalError

from controller.cli.audit import audit
from controller.cli.check import check
from controller.cli.db import db
from controller.cli.dead_letters import dead_letter
from controller.cli.hosts import host
from controller.cli.images import image
from controller.cli.init import init
from controller.cli.instance_types import instance_type
from controller.cli.instances import instance
from controller.cli.join import join
from controller.cli.lifecycle import down, up
from controller.cli.networks import network
from controller.cli.operator import Operator
from controller.cli.output import printable
from controller.cli.projects import project
from controller.cli.serve import serve
from controller.cli.service import service
from controller.cli.status import status
from controller.cli.users import user
from controller.conf.load import SITE_FILE, is_of_a_site
from controller.db.database import unavailable
from controller.domain.errors import CloudError
from controller.domain.release import RELEASE


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
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


for command in (
    init,
    up,
    down,
    status,
    serve,
    join,
    db,
    host,
    network,
    image,
    instance,
    instance_type,
    project,
    user,
    dead_letter,
    service,
    audit,
    check,
):
    pileus.add_command(command)


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
