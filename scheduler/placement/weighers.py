"""Weighers: the next instance goes to the host that weighs least.

An operator's own weigher is a function like these, named by an entry point of ``pileus.scheduler.weighers``.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from scheduler.placement.host_table import Floats, Hosts, Ints
from scheduler.placement.request import Request

# (request, hosts, how many instances of this request each host would carry already) -> the weight of each host.
Weigher: TypeAlias = Callable[[Request, Hosts, Ints], Floats]


def load(request: Request, hosts: Hosts, carried: Ints) -> Floats:
    """The claimed share of a host's scarcest resource, 0 to 1."""
    limit = hosts.limit
    used = limit - hosts.free
    shares = (used + hosts.need(request) * carried) / np.maximum(limit, 1)
    if not limit.all():
        shares[limit == 0] = 1.0
    highest: Floats = shares.max(axis=0)
    return highest


def image_present(request: Request, hosts: Hosts, _: Ints) -> Floats:
    """-1 for hosts that have the image's file already: nothing has to be fetched."""
    if not request.image:
        return np.zeros(len(hosts))
    return -hosts.with_image(request.image).astype(np.float64)
