"""`pileus serve`: services in the foreground, until a signal ends them in order."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

import click
import structlog

from controller.cli.daemon import Daemon
from controller.cli.host_name import store_host_name
from controller.cli.logs import set_up_logging
from controller.cli.operator import Operator, pass_operator
from controller.cli.services import Service, make_services, service_names
from controller.conf.settings import Settings
from controller.domain.errors import CloudError, ConfigurationError
from controller.limits import check_at_start

STOP_TIMEOUT_S = 30.0
log = structlog.get_logger(__name__)


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
            reason=f"[bus] url is {settings.bus.url}, the memory of one process: `serve {name}` alone would hear "
            "nobody. Serve all, or set the URL of a RabbitMQ"
        )
    set_up_logging(settings, log_file)
    names = service_names() if name == "all" else [name]
    sys.exit(serve_here(names, settings, be_daemon=name == "all"))


def serve_here(names: Sequence[str], settings: Settings, *, be_daemon: bool) -> int:
    """Run these services in this process; all of them together are what `status` and `down` look for.

    Raises:
        ConfigurationError: the process would run out of connections or files.
    """
    check_at_start(names, settings)
    with ExitStack() as stack:
        ready = stack.enter_context(Daemon(settings.state_dir).held()) if be_daemon else _nothing
        return run_services(make_services(names, settings, stack, registered=True), settings, ready)


def simulated_hosts(count: int, *, alone: bool = True) -> dict[tuple[str, str], object]:
    """The options that make an agent run simulated hosts; with all services (not ``alone``) no real network either."""
    options: dict[tuple[str, str], object] = {("compute", "driver"): "simulated", ("compute", "simulated_hosts"): count}
    return options if alone else {**options, ("network", "driver"): "none"}


def _nothing() -> None:
    pass


def run_services(services: Sequence[Service], settings: Settings, ready: Callable[[], None] = _nothing) -> int:
    """Start them, wait for SIGTERM or SIGINT, stop them in reverse; a second signal ends the process at once.

    Answers with the exit status: 1 when one of them could not be started or stopped, or ended all (``refused``).
    """
    stop = threading.Event()
    _stop_on_signals(stop)
    started: list[Service] = []
    status = 0
    log.info("starting", cloud_id=settings.general.cloud_id, state_dir=settings.general.state_dir, pid=os.getpid())
    try:
        for service in services:
            if stop.is_set():
                break
            service.start()
            started.append(service)
            log.info("service started", service=service.name)
        ready()
        notify("READY=1")
        stop.wait()
    except CloudError as error:
        log.error("a service could not be started", reason=str(error))  # noqa: TRY400 - it says what to do
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


def notify(state: str) -> None:
    """Tell systemd, where it asked to be told (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.settimeout(1)
            out.sendto(state.encode(), f"\0{address[1:]}" if address.startswith("@") else address)
    except OSError as error:
        log.warning("systemd could not be notified", reason=str(error))


def _stop_on_signals(stop: threading.Event) -> None:
    def on_signal(number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)


def _give_up() -> None:
    log.error("not stopped in time, ending all the same", timeout_s=STOP_TIMEOUT_S)
    os._exit(1)
