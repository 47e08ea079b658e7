"""The operator's policy: which filters in which order, which weighers with which weight."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from typing import Any

import numpy as np

from controller.conf.settings import Scheduler
from controller.domain.errors import ConfigurationError
from scheduler.placement.filters import Filter
from scheduler.placement.host_table import Floats, Hosts, Ints
from scheduler.placement.request import Request
from scheduler.placement.weighers import Weigher

FILTERS = "pileus.scheduler.filters"
WEIGHERS = "pileus.scheduler.weighers"


@dataclass(frozen=True, eq=False)
class Policy:
    """Filters are called in their order, the first refusal counts. The first ``lasting`` of them need not be called
    again when only the load of a host has changed."""

    filters: tuple[tuple[str, Filter], ...]
    weighers: tuple[tuple[Weigher, float], ...]
    settings: Scheduler
    lasting: int = field(init=False)

    def __post_init__(self) -> None:
        changing = (n for n, (_, check) in enumerate(self.filters) if not getattr(check, "lasting", False))
        object.__setattr__(self, "lasting", next(changing, len(self.filters)))

    def weigh(self, request: Request, hosts: Hosts, carried: Ints) -> Floats:
        """The weighted sum of what the weighers answer."""
        total: Floats | None = None
        for weigher, weight in self.weighers:
            part = weigher(request, hosts, carried) * weight
            total = part if total is None else total + part
        return np.zeros(len(hosts)) if total is None else total


@cache
def policy_for(settings: Scheduler) -> Policy:
    """The policy that the configuration names; the same object for the same settings.

    Raises:
        ConfigurationError: no installed package offers a filter or weigher of that name, or a weight is not a number.
    """
    filters = _load(FILTERS, "filters", settings.filters)
    weights = dict(_weight(text) for text in settings.weighers)
    weighers = _load(WEIGHERS, "weighers", weights)
    if settings.strategy == "pack" and "load" in weights:
        weights["load"] = -weights["load"]
    return Policy(
        filters=tuple(filters.items()),
        weighers=tuple((weighers[name], weight) for name, weight in weights.items() if weight),
        settings=settings,
    )


def _weight(text: str) -> tuple[str, float]:
    name, _, number = text.partition(":")
    try:
        weight = float(number or 1)
    except ValueError:
        weight = float("nan")
    if not np.isfinite(weight):
        raise ConfigurationError(reason=f"[scheduler] weighers: {text!r} must be a name, a colon and a number")
    return name.strip(), weight


def _load(group: str, option: str, names: Iterable[str]) -> dict[str, Callable[..., Any]]:
    offered = {e.name: e for e in entry_points(group=group)}
    if unknown := sorted(set(names) - offered.keys()):
        raise ConfigurationError(
            reason=f"[scheduler] {option}: nothing is called {', '.join(unknown)}; "
            f"there are {', '.join(sorted(offered)) or 'none: is the package installed?'}"
        )
    return {name: offered[name].load() for name in names}
