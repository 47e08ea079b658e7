"""`pileus audit`: whether every promise of the cloud holds right now, and what is safe to repair."""

import json
import sys
import urllib.error
import urllib.request
from dataclasses import asdict, replace
from typing import Any

import click

from controller.cli.daemon import Daemon
from controller.cli.health import local_api_url
from controller.cli.operator import Operator, output_option, pass_operator
from controller.cli.output import counted, print_json, printable
from controller.domain.errors import Unavailable
from controller.operations.audit.observed_state import TIMEOUT_S
from controller.operations.audit.operator_token import operator_token
from controller.operations.audit.repair import MOST_REMOVALS
from controller.operations.audit.run import AuditOptions, Report, document, run_audit
from controller.operations.audit.violation import Violation
from controller.operations.hosts.hosts import list_hosts

_DEFAULT = AuditOptions()
# A repair looks up to a dozen times.
_ANSWER_S = 600.0
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@click.command()
@click.option("--repair", is_flag=True, help="Mend what is safe; no guest that a row owns is stopped.")
@click.option("--database-only", is_flag=True, help="Ask neither hosts nor the network service.")
@click.option(
    "--settle",
    "settle_s",
    type=click.FloatRange(0, 60),
    default=_DEFAULT.settle_s,
    show_default=True,
    help="Seconds until what was seen on a host is looked at again, before it is believed.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0.1, 120),
    default=TIMEOUT_S,
    show_default=True,
    help="Seconds that a host has to answer.",
)
@click.option(
    "--most-removals",
    type=click.IntRange(0),
    default=MOST_REMOVALS,
    show_default=True,
    help="With --repair: if more guests than this have no row, none is removed.",
)
@output_option
@pass_operator
def audit(
    operator: Operator, repair: bool, database_only: bool, settle_s: float, timeout_s: float, most_removals: int
) -> None:
    """Check the promises of the cloud while it runs: rows, hosts, DHCP, firewall. Exit status 1 for any violation."""
    options = AuditOptions(repair, not database_only, settle_s, timeout_s, most_removals)
    found = _run(operator, options)
    if operator.output == "json":
        print_json(found)
    else:
        _print(found)
    sys.exit(0 if found["clean"] else 1)


def _run(operator: Operator, options: AuditOptions) -> dict[str, Any]:
    """On the embedded bus, in the process that has it; where that does not run, there is only the database."""
    if not options.observed or not operator.settings.embedded_bus:
        return document(run_audit(operator.cloud, options))
    if Daemon(operator.settings.state_dir).pid() is not None:
        return _ask(operator, options)
    return document(_without_hosts(operator, options))


def _without_hosts(operator: Operator, options: AuditOptions) -> Report:
    """The rows alone, of a cloud that does not run: not clean where it has hosts."""
    found = run_audit(operator.cloud, replace(options, observed=False))
    count = len(operator.read(list_hosts))
    if not count:
        return found
    what = f"it is not running here: {counted(count, 'host')}, DHCP and firewall were not looked at"
    unseen = Violation(5, what, "cloud", "`pileus up`, or audit the rows alone: --database-only")
    return replace(found, violations=[*found.violations, unseen])


def _ask(operator: Operator, options: AuditOptions) -> dict[str, Any]:
    request = urllib.request.Request(  # noqa: S310 - our own URL
        f"{local_api_url(operator.settings)}/v1/audit",
        json.dumps(asdict(options)).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {operator_token(operator.settings)}"},
    )
    try:
        with _OPENER.open(request, timeout=_ANSWER_S) as answer:
            found: dict[str, Any] = json.load(answer)
    except urllib.error.HTTPError as error:
        reason = f"it answers {error.code}: {error.read(300).decode(errors='replace')}"
        raise Unavailable(what="The audit of the running cloud", reason=reason) from error
    except (OSError, ValueError) as error:
        raise Unavailable(what="The audit of the running cloud", reason=str(error)) from error
    return found


def _print(found: dict[str, Any]) -> None:
    for note in found["notes"]:
        click.echo(printable(f"note: {note}"), err=True)
    for violation in found["mended"]:
        click.echo(printable(f"mended: {_line(violation)}; {violation['remedy']}"))
    for violation in found["breaches"]:
        click.echo(printable(f"{_line(violation)}; {violation['advice']}"))
    if found["clean"]:
        click.echo("clean")


def _line(violation: dict[str, Any]) -> str:
    return f"promise {violation['promise']}: {violation['subject']}: {violation['what']}"
