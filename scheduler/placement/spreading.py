"""The hosts of a batch of identical instances, computed on whole arrays."""

import numpy as np

from scheduler.placement.host_table import Bools, Floats, HostTable, Ints
from scheduler.placement.policy import Policy
from scheduler.placement.request import Request


def spread(request: Request, host_table: HostTable, policy: Policy, room: Ints, carried: Ints, count: int) -> Ints:
    """The hosts of the next ``count`` instances, in order: each goes to the host that weighs least with what it
    carries by then, ties to the smaller id; no host gets more than its ``room``.

    Slot n of a host is its room for the n-th instance. Choosing one by one takes slot n before any slot of another host
    that weighs more than the heaviest of the slots up to n, so sorting by that running maximum gives the same order.
    The number of slots looked at for each host is doubled until no further slot can be among the first ``count``.
    """
    room = np.minimum(room, count)
    active: Ints = np.flatnonzero(room > 0)
    highest: Floats = np.full(len(host_table), -np.inf)
    keys: list[Floats] = []
    hosts: list[Ints] = []
    done, width = 0, 1
    while len(active):
        at = np.repeat(active, width)
        slot = np.tile(np.arange(done, done + width), len(active))
        weights = policy.weigh(request, host_table.hosts(at), carried[at] + slot).reshape(-1, width)
        np.maximum(weights[:, 0], highest[active], out=weights[:, 0])
        np.maximum.accumulate(weights, axis=1, out=weights)
        there = slot < room[at]
        keys.append(weights.ravel()[there])
        hosts.append(at[there])
        highest[active] = weights[:, -1]
        done += width
        width *= 2
        active = active[room[active] > done]
        if sum(map(len, keys)) >= count and len(active):
            active = _could_still_be_first(active, highest, host_table.rank, keys, hosts, count)
    if not keys:
        return active
    return _first(np.concatenate(keys), np.concatenate(hosts), host_table.rank, count)


def pack(room: Ints, weight: Floats, rank: Ints, members: Bools, count: int) -> Ints:
    """The hosts of ``count`` instances of a cluster group: first hosts with members of the group, then those with the
    most room for what is left to place, each filled before the next."""
    room = np.minimum(room, count)
    at = np.flatnonzero(room > 0)
    at = at[np.lexsort((rank[at], weight[at], -room[at], ~members[at]))]
    before = np.cumsum(room[at]) - room[at]
    return np.repeat(at, np.clip(count - before, 0, room[at]))


def _could_still_be_first(
    active: Ints, highest: Floats, rank: Ints, keys: list[Floats], hosts: list[Ints], count: int
) -> Ints:
    """The hosts that may have a further slot among the first ``count``."""
    key, tie = np.concatenate(keys), rank[np.concatenate(hosts)]
    last = np.partition(key, count - 1)[count - 1]
    earlier = int(np.count_nonzero(key < last))
    last_tie = np.partition(tie[key == last], count - earlier - 1)[count - earlier - 1]
    of_active = highest[active]
    still: Ints = active[(of_active < last) | ((of_active == last) & (rank[active] < last_tie))]
    return still


def _first(key: Floats, host: Ints, rank: Ints, count: int) -> Ints:
    if len(key) > count:
        near = key <= np.partition(key, count - 1)[count - 1]
        key, host = key[near], host[near]
    first: Ints = host[np.lexsort((rank[host], key))[:count]]
    return first
