"""Filters: how many instances of a request each host may take, and if none, why not in a few words.

An operator's own filter is a function like these, named by an entry point of ``pileus.scheduler.filters``; it imports
``scheduler.filters``, which stays where it is.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from controller.conf.settings import Scheduler
from controller.domain.host_facts import CAPACITIES
from controller.domain.hosts import HostMode
from controller.domain.placement_groups import GroupStrategy
from scheduler.placement.host_table import Bools, Hosts, Ints
from scheduler.placement.request import Request

# More than any request asks for.
ANY_NUMBER = 1 << 40
_LACKS = tuple(capacity.lacking for capacity in CAPACITIES)


class Verdict(NamedTuple):
    """``which`` is the index of each host's reason in ``reasons`` (None: there is one only), used where it fails.

    ``room`` is how many instances of the request a host may take at most (None: any number). Each instance that is
    placed makes it one less, unless the filter is ``lasting``.
    """

    passes: Bools
    reasons: Sequence[str]
    which: Ints | None = None
    room: Ints | None = None


# None: no objection to any host.
Filter: TypeAlias = Callable[[Request, Hosts, Scheduler], Verdict | None]


def lasting(check: Filter) -> Filter:
    """Mark a filter whose answer does not depend on a host's load: it is not called again when that changes."""
    check.lasting = True  # type: ignore[attr-defined]
    return check


@lasting
def alive(_: Request, hosts: Hosts, __: Scheduler) -> Verdict:
    """Hosts whose heartbeats stopped take nothing."""
    return Verdict(hosts.up, ("down: no heartbeat",))


@lasting
def in_service(_: Request, hosts: Hosts, __: Scheduler) -> Verdict:
    """Hosts that the operator took out of service take nothing new."""
    return Verdict(hosts.mode == hosts.code(HostMode.READY), [w.lower() for w in hosts.words], hosts.mode)


@lasting
def zone(request: Request, hosts: Hosts, _: Scheduler) -> Verdict | None:
    """A request for a zone stays in it."""
    if not request.zone:
        return None
    return Verdict(hosts.zone == hosts.code(request.zone), (f"not in zone {request.zone}",))


@lasting
def architecture(request: Request, hosts: Hosts, _: Scheduler) -> Verdict:
    """An image runs on its own architecture only."""
    return _only(hosts, hosts.architecture, request.architecture)


@lasting
def hypervisor(request: Request, hosts: Hosts, _: Scheduler) -> Verdict | None:
    """Some images run on one kind of hypervisor only."""
    return _only(hosts, hosts.hypervisor, request.hypervisor) if request.hypervisor else None


@lasting
def labels(request: Request, hosts: Hosts, _: Scheduler) -> Verdict | None:
    """A host has all labels that the instance type and the image require; the reason names the first missing one."""
    if not request.labels:
        return None
    has: Bools = np.array([hosts.labelled(label) for label in request.labels])
    passes: Bools = np.all(has, axis=0)
    return Verdict(passes, [f"lacks label {label}" for label in request.labels], has.argmin(axis=0))


@lasting
def group(request: Request, hosts: Hosts, _: Scheduler) -> Verdict | None:
    """No two members of a spread group on one host, those of this request included."""
    if request.group_strategy != GroupStrategy.SPREAD:
        return None
    passes = ~hosts.among(request.group_hosts)
    return Verdict(passes, ("carries a member of the group",), room=passes.astype(np.int64))


def capacity(request: Request, hosts: Hosts, _: Scheduler) -> Verdict:
    """There is room for at least one instance; the reason names the first resource that is short."""
    free = hosts.free
    room = _fits(free, hosts.need(request))
    passes = room > 0
    if passes.all():
        return Verdict(passes, _LACKS, room=room)
    enough = free >= hosts.need(request)
    return Verdict(passes, _LACKS, enough.argmin(axis=0), room)


def reserve(request: Request, hosts: Hosts, settings: Scheduler) -> Verdict | None:
    """``reserved_host_share`` of each host stays free."""
    share = settings.reserved_host_share
    if not share:
        return None
    kept = np.ceil(hosts.limit * share).astype(np.int64)
    room = _fits(hosts.free - kept, hosts.need(request))
    return Verdict(room > 0, (f"all but the reserved {share:.0%} is taken",), room=room)


def _only(hosts: Hosts, codes: Ints, wanted: str) -> Verdict:
    return Verdict(codes == hosts.code(wanted), [f"{w}, not {wanted}" for w in hosts.words], codes)


def _fits(free: Ints, need: Ints) -> Ints:
    """How many instances fit into what is free; 0 or less: none."""
    fits = [of // one for of, one in zip(free, need, strict=True) if one.all()]
    if not fits:
        return np.full(free.shape[1], ANY_NUMBER)
    room: Ints = fits[0]
    for other in fits[1:]:
        room = np.minimum(room, other)
    return room
