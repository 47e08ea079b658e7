"""Weighers: the next instance goes to the host that weighs least.

A weigher of one's own is a function like these, named by an entry point of ``pileus.scheduler.weighers``.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from scheduler.host import Request
from scheduler.host_table import Floats, Hosts, Ints

# The third argument is how many instances of this very request each host would carry already.
Weigher: TypeAlias = Callable[[Request, Hosts, Ints], Floats]


def load(request: Request, hosts: Hosts, carried: Ints) -> Floats:
    """The share of a host that is promised, 0 to 1, of its scarcest resource."""
    limit = hosts.limit
    used = limit - hosts.free
    shares = (used + hosts.need(request) * carried) / np.maximum(limit, 1)
    if not limit.all():
        shares[limit == 0] = 1.0
    highest: Floats = shares.max(axis=0)
    return highest


def image_present(request: Request, hosts: Hosts, _: Ints) -> Floats:
    """-1 where the image's file lies on the host already: nothing has to be fetched."""
    if not request.image:
        return np.zeros(len(hosts))
    return -hosts.with_image(request.image).astype(np.float64)
