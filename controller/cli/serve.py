"""`pileus serve`: services in the foreground, until a signal ends them in order."""

import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TypeAlias

import click
import structlog
from sqlalchemy import text

from controller.cli.daemon import Daemon
from controller.cli.health import bus_problem
from controller.cli.health_file import HealthFile, health_file
from controller.cli.host_name import store_host_name
from controller.cli.logs import set_level, set_up_logging
from controller.cli.operator import Operator, pass_operator
from controller.cli.services import Service, make_services
from controller.cli.systemd import notify
from controller.conf.settings import Settings
from controller.db.database import Database
from controller.domain.errors import CloudError, ConfigurationError
from controller.health import Health, Probe, Problem
from controller.installed_services import service_names
from controller.limits import check_at_start
from controller.memory import give_back, limit_arenas

STOP_TIMEOUT_S = 30.0
LOOK_EVERY_S = 1.0
GIVE_BACK_EVERY_S = 30.0
PROBE_EVERY_S, PROBE_LATE_S = 10.0, 20.0
Reload: TypeAlias = Callable[[], None]
log = structlog.get_logger(__name__)


def _nothing() -> None:
    """For who has nothing to be told."""


@click.command()
@click.argument("name")
@click.option("--simulated", type=click.IntRange(1, 10000), help="Run this many simulated hosts instead of this one.")
@click.option("--log-file", type=click.Path(path_type=Path), help="Log there instead of to standard error.")
@pass_operator
def serve(operator: Operator, name: str, simulated: int | None, log_file: Path | None) -> None:
    """Run one service, or all of them in one process, in the foreground."""
    if name != "all" and name not in service_names():
        raise click.BadParameter(f"{name!r} is none of all, {', '.join(service_names())}", param_hint="NAME")
    if simulated and name not in ("all", "compute"):
        raise click.UsageError("--simulated is for compute and all")
    if name == "all":
        store_host_name(operator)
    settings = operator.load(simulated_hosts(simulated, alone=name != "all") if simulated else None)
    if settings.embedded_bus and name != "all":
        raise ConfigurationError(
            reason=f"[bus] url is {settings.bus.url}, the memory of one process: `serve {name}` alone would get "
            "no message. Use `serve all`, or set the URL of a RabbitMQ"
        )
    set_up_logging(settings, log_file)
    names = service_names() if name == "all" else [name]
    sys.exit(serve_here(names, settings, reload_of(operator), be_daemon=name == "all"))


def reload_of(operator: Operator) -> Reload:
    """What a process of this cloud does at SIGHUP: take the log level from its file again."""

    def reload() -> None:
        level = operator.load().general.log_level
        set_level(level)
        log.info("configuration read again", log_level=level, rest="other changes take effect with a restart")

    return reload


def serve_here(names: Sequence[str], settings: Settings, reload: Reload, *, be_daemon: bool) -> int:
    """Run these services in this process; all of them together are what `status` and `down` look for.

    ``reload`` is called at SIGHUP.

    Raises:
        ConfigurationError: the process would run out of connections or files.
    """
    limit_arenas()
    check_at_start(names, settings)
    health = Health()
    with ExitStack() as stack:
        ready = stack.enter_context(Daemon(settings.state_dir).held()) if be_daemon else _nothing
        services = make_services(names, settings, stack, health, registered=True)
        add_probes(health, names, settings, stack)
        file = stack.enter_context(health_file(settings, names))
        return run_services(services, settings, ready, health=health, file=file, reload=reload)


def simulated_hosts(count: int, *, alone: bool = True) -> dict[tuple[str, str], object]:
    """The options that make an agent run simulated hosts; with all services (not ``alone``) no real network either."""
    options: dict[tuple[str, str], object] = {("compute", "driver"): "simulated", ("compute", "simulated_hosts"): count}
    return options if alone else {**options, ("network", "driver"): "none"}


def run_services(
    services: Sequence[Service],
    settings: Settings,
    ready: Callable[[], None] = _nothing,
    *,
    health: Health | None = None,
    file: HealthFile | None = None,
    reload: Reload = _nothing,
) -> int:
    """Start them, wait for SIGTERM or SIGINT, stop them in reverse; a second signal ends the process at once.

    ``ready`` is called when all have started; systemd is told so when they are also well. Whatever is not is told to
    ``file`` and to systemd. At SIGHUP ``reload`` is called.

    Answers with the exit status: 1 when one of them could not be started or stopped, or ended all (``refused``).
    """
    signals = Signals()
    started: list[Service] = []
    status = 0
    log.info("starting", cloud_id=settings.general.cloud_id, state_dir=settings.general.state_dir, pid=os.getpid())
    try:
        for service in services:
            if signals.stopping:
                break
            service.start()
            started.append(service)
            log.info("service started", service=service.name)
        ready()
        _watch(signals, Report(health or Health(), file), reload)
    except CloudError as error:
        log.error("a service could not be started", reason=str(error))  # noqa: TRY400 - it says what to do
        notify(f"STATUS={error}")
        status = 1
    except Exception:
        log.exception("a service could not be started")
        status = 1
    notify("STOPPING=1")
    watchdog = threading.Timer(STOP_TIMEOUT_S, _give_up)
    watchdog.daemon = True
    watchdog.start()
    for service in reversed(started):
        try:
            service.stop()
        except Exception:
            log.exception("a service could not be stopped", service=service.name)
            status = 1
    if any(getattr(service, "refused", "") for service in started):
        status = 1
    watchdog.cancel()
    log.info("stopped")
    return status


def add_probes(health: Health, names: Sequence[str], settings: Settings, stack: ExitStack) -> None:
    """Have the engines asked as well: a service with nothing to do does not notice that they are away.

    Consumers notice by themselves whether the bus is there.
    """
    if not set(names) <= {"compute"}:
        database = Database(replace(settings, database=replace(settings.database, pool_size=1, max_overflow=0)))
        stack.callback(database.close)
        _add_probe(health, stack, "database", lambda: _database_problem(database))
    if "api" in names and not settings.embedded_bus:
        _add_probe(health, stack, "bus", lambda: bus_problem(settings), vital=False)


def _add_probe(health: Health, stack: ExitStack, name: str, ask: Callable[[], str], *, vital: bool = True) -> None:
    probe = Probe(name, ask, PROBE_EVERY_S, PROBE_LATE_S)
    health.add(name, probe.problem, vital=vital)
    stack.callback(probe.stop)
    probe.start()


def _database_problem(database: Database) -> str:
    database.read(lambda session: session.execute(text("SELECT 1")))
    return ""


class Signals:
    """What the process was told by signals, taken up by its main thread."""

    def __init__(self) -> None:
        self.stopping = False
        # Reentrant: a handler may interrupt a thread that reads from it.
        self._orders: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._take)

    def next(self, timeout_s: float) -> int | None:
        """The next one, or None."""
        try:
            return self._orders.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def _take(self, number: int, _frame: FrameType | None) -> None:
        if number != signal.SIGHUP:
            if self.stopping:
                os._exit(128 + number)
            self.stopping = True
        self._orders.put(number)


class Report:
    """Tells systemd, the log and the health file how the process is, whenever that changes."""

    def __init__(self, health: Health, file: HealthFile | None) -> None:
        self._health = health
        self._file = file
        self._told: list[Problem] | None = None
        self._ready = False

    def update(self) -> None:
        """Look, and tell."""
        problems = self._health.problems()
        became_ready = not self._ready and not any(p.vital for p in problems)
        if problems == self._told and not became_ready:
            return
        self._ready = self._ready or became_ready
        text = "; ".join(f"{p.name}: {p.reason}" for p in problems)
        status = ("not well: " if self._ready else "starting: ") + text if text else "well"
        notify(*["READY=1"][:became_ready], f"STATUS={' '.join(status.split())}")
        names = {p.name for p in problems}
        if self._ready and names != {p.name for p in self._told or ()}:
            if problems:
                log.warning("not well", problems=text)
            else:
                log.info("well again")
        if self._file:
            self._file.write(problems, ready=self._ready)
        self._told = problems


def _watch(signals: Signals, report: Report, reload: Reload) -> None:
    """Until the process is to end."""
    given_back = time.monotonic()
    while not signals.stopping:
        report.update()
        if time.monotonic() - given_back > GIVE_BACK_EVERY_S:
            give_back()
            given_back = time.monotonic()
        if signals.next(LOOK_EVERY_S) == signal.SIGHUP:
            try:
                reload()
            except Exception as error:
                log.warning("the configuration cannot be read again: all stays as it is", reason=str(error))


def _give_up() -> None:
    log.error("not stopped in time, ending all the same", timeout_s=STOP_TIMEOUT_S)
    os._exit(1)
