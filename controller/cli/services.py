"""Services of a process: made from what is installed, on one bus and at most one database."""

import inspect
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Protocol

from controller.bus.bus import Bus
from controller.conf.settings import Settings
from controller.domain.clock import system_clock
from controller.domain.errors import ConfigurationError
from controller.health import Health
from controller.installed_services import load
from controller.operations import secrets
from controller.operations.cloud import Cloud
from controller.workers.register import ServiceRegister


class Service(Protocol):
    """One part of the control plane; threads are its own.

    Its class may have a static method ``needs(settings)``: see ``controller.needs.Needs``.
    """

    name: str

    def start(self) -> None:
        """Begin; returns at once."""

    def stop(self) -> None:
        """End in bounded time. Guests, dnsmasq and libvirtd go on."""

    def problem(self) -> str:
        """What keeps it from its work now, empty when nothing does; returns at once."""

    def destroy(self) -> None:
        """Remove everything that it made on this machine, also when nothing runs."""


def make_services(
    names: Sequence[str],
    settings: Settings,
    stack: ExitStack,
    health: Health | None = None,
    *,
    registered: bool = False,
) -> list[Service]:
    """These services, not yet started, on one bus and at most one database; ``stack`` closes both.

    ``health`` is told how to ask for their problems. ``registered``: those that have the database are preceded by what
    keeps their rows.

    Raises:
        ConfigurationError: a service that is not installed, or a machine that was not told which cloud's it is.
    """
    classes = [load(name) for name in names]
    with_cloud = any(map(_takes_cloud, classes))
    _check_identity(settings, with_key=with_cloud)
    health = health or Health()
    cloud = Cloud.connect(settings, health) if with_cloud else None
    bus = cloud.bus if cloud else Bus(settings)
    stack.callback(bus.close)  # type: ignore[attr-defined]
    if cloud:
        stack.callback(cloud.database.close)
    made: list[Service] = [c(cloud) if _takes_cloud(c) else c(settings, bus, system_clock) for c in classes]
    if cloud and registered:
        in_it = [name for name, c in zip(names, classes, strict=True) if _takes_cloud(c)]
        made.insert(0, ServiceRegister(cloud, in_it))
    for service in made:
        health.add(service.name, service.problem)
    return made


def _check_identity(settings: Settings, *, with_key: bool) -> None:
    """Whatever starts without its cloud's id, or its key, would only fail later, one request after the other."""
    if settings.general.cloud_id == Settings().general.cloud_id:
        reason = "[DEFAULT] cloud_id is not set: take the one of the machine where `pileus init` was run"
        raise ConfigurationError(reason=reason)
    if with_key:
        secrets.derived_key(settings, "start")


def _takes_cloud(service: Any) -> bool:
    """An agent does not: it has no credentials for the database."""
    return "cloud" in inspect.signature(service).parameters
