"""The services that are installed, found by entry point: the controller imports none of them."""

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from controller.conf.settings import Settings
from controller.domain.errors import ConfigurationError
from controller.needs import Needs

GROUP = "pileus.services"
# The doors open last and close first: a request finds every service that it needs.
ORDER = ("compute", "network", "scheduler", "controller", "metadata", "api")


def service_names() -> list[str]:
    """Every service that is installed, in the order in which they start."""
    found = {e.name for e in entry_points(group=GROUP)}
    return [n for n in ORDER if n in found] + sorted(found - set(ORDER))


def load(name: str) -> Any:
    """The class of a service (see ``controller.cli.services.Service``).

    Raises:
        ConfigurationError: it is not installed, or cannot be imported.
    """
    found = entry_points(group=GROUP, name=name)
    if not found:
        raise ConfigurationError(reason=f"no service {name!r} is installed; there are {', '.join(service_names())}")
    try:
        return next(iter(found)).load()
    except ImportError as error:
        raise ConfigurationError(reason=f"the service {name} cannot be loaded: {error}") from error


def needs(name: str, settings: Settings) -> Needs:
    """What a service says that it needs with these settings, by its static method ``needs``; nothing without one.

    Raises:
        ConfigurationError: see ``load``.
    """
    declared: Callable[[Settings], Needs] | None = getattr(load(name), "needs", None)
    return declared(settings) if declared is not None else Needs()
