"""`pileus status`: what runs, and whether it is well."""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import click
from sqlalchemy import func, select
from sqlalchemy.engine import make_url

from controller.cli.daemon import Daemon
from controller.cli.health import api_problem, bus_problem, database_problem
from controller.cli.health_file import processes
from controller.cli.operator import Operator, output_option, pass_operator
from controller.cli.output import print_row
from controller.conf.settings import Settings
from controller.db.models import Host, Instance
from controller.domain.states import State
from controller.operations.cloud import Transaction
from controller.operations.database import schema
from controller.operations.hosts import stray_guests
from controller.operations.networks import quarantine
from controller.operations.services import services


@click.command()
@output_option
@pass_operator
def status(operator: Operator) -> None:
    """Show services, hosts and instances; on a host, its agent. Exit status 1 when the cloud is not up, or not well."""
    document = describe(operator)
    print_row(operator, document)
    sys.exit(0 if document["healthy"] else 1)


def describe(operator: Operator) -> dict[str, Any]:
    """The state of the cloud; ``problems`` says what is not as it should be."""
    settings = operator.settings
    if operator.is_host:
        return _of_a_host(settings)
    pid = Daemon(settings.state_dir).pid()
    problems = {
        "api": api_problem(settings),
        "database": database_problem(operator.cloud),
        "bus": bus_problem(settings),
    }
    running = processes(settings)
    for process in running:
        problems |= {p.name: p.reason for p in process.problems if not problems.get(p.name)}
    counts: dict[str, Any] = {"releases": {}, "hosts": {}, "instances": {}}
    if not problems["database"]:
        if reason := operator.read(schema.problem):
            problems["database"] = reason
        else:
            counts = operator.read(_count)
    # At a site the services are processes of their own, which their supervisor knows.
    up = bool(pid) or not (settings.embedded_bus or problems["api"])
    return {
        "state_dir": settings.state_dir,
        "url": settings.public_url,
        "up": up,
        "healthy": up and not any(problems.values()),
        "pid": pid,
        "memory_mib": _memory_mib(pid) if pid else None,
        "services": sorted({name for process in running for name in process.services}),
        "database": _engine(settings),
        "bus": settings.bus.url.partition(":")[0],
        "problems": {name: text for name, text in problems.items() if text},
        **counts,
    }


def _of_a_host(settings: Settings) -> dict[str, Any]:
    """The state of a machine that has an agent and nothing else of the site."""
    running = processes(settings)
    problems = {"bus": bus_problem(settings)} | {p.name: p.reason for process in running for p in process.problems}
    return {
        "state_dir": settings.state_dir,
        "up": bool(running),
        "healthy": bool(running) and not any(problems.values()),
        "services": sorted({name for process in running for name in process.services}),
        "bus": settings.bus.url.partition(":")[0],
        "problems": {name: text for name, text in problems.items() if text},
    }


def _count(tx: Transaction) -> dict[str, Any]:
    """What there is of each: hosts by mode, instances by state; services and agents by name and release."""
    releases = Counter(f"{s.name} {s.release}" for s in services.running(tx))
    agents = tx.session.execute(select(Host.release, func.count()).where(Host.up).group_by(Host.release))
    releases += Counter({f"compute {release or '0.1'}": n for release, n in agents})
    hosts = Counter(
        f"{mode.lower()}" if is_up else "down" for mode, is_up in tx.session.execute(select(Host.mode, Host.up))
    )
    instances = tx.session.execute(
        select(Instance.state, func.count().label("n")).where(Instance.state != State.DELETED).group_by(Instance.state)
    )
    overdue = tx.session.scalar(
        select(func.count()).where(Instance.state == State.DELETING, Instance.deadline_at.is_(None))
    )
    kept = {"quarantined_addresses": quarantine.count(tx), "stray_guests": len(stray_guests.held_strays(tx))}
    held = {what: n for what, n in kept.items() if n}
    return {
        "releases": dict(sorted(releases.items())),
        "hosts": dict(sorted(hosts.items())),
        "instances": {row.state: row.n for row in instances},
        **({"held": held} if held else {}),
        **({"overdue": {State.DELETING: overdue}} if overdue else {}),
    }


def _engine(settings: Settings) -> str:
    return make_url(settings.database_url).get_backend_name()


def _memory_mib(pid: int) -> int | None:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    resident = [line.split()[1] for line in lines if line.startswith("VmRSS:")]
    return int(resident[0]) // 1024 if resident else None
