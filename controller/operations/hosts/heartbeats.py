"""A batch of heartbeats, from the message to the rows: each step of ``apply_heartbeats`` is one module."""

from collections.abc import Iterable, Mapping

from sqlalchemy import select

from controller.db.bulk import among
from controller.db.models import Host, Instance
from controller.domain.messages import GuestState, HostReported
from controller.domain.states import State
from controller.operations.cloud import Transaction
from controller.operations.hosts import shown_guests, stray_guests
from controller.operations.hosts.fencing import acceptances
from controller.operations.hosts.lateness import lateness, newest_of
from controller.operations.hosts.renewal import renew_hosts
from controller.operations.hosts.unchanged_heartbeats import Rows, rows_of
from controller.operations.instances.locking import lock_instances
from controller.operations.networks import quarantine


def apply_heartbeats(tx: Transaction, messages: Iterable[HostReported]) -> Mapping[str, Rows]:
    """Apply the newest heartbeat of each host: renew the hosts, and reconcile rows that lost events left behind. Late
    heartbeats change nothing.

    Returns:
        The hosts with nothing left to do while their heartbeats stay the same, with a digest of their instances' rows.

    Raises:
        PoisonMessage: a heartbeat that cannot be true.
    """
    newest = newest_of(messages)
    # 1. Compare with the rows, without locks.
    carried, epochs = _read_carried(tx, newest)
    differing: dict[str, GuestState | None] = {}
    for host, on_host in carried.items():
        differing |= shown_guests.find_differences(on_host, newest[host])
    own = {i for on_host in carried.values() for i in on_host}
    strays = {i for host, mine in carried.items() for i in stray_guests.strangers(newest[host], mine)} - own
    # 2. Lock instances, leases, hosts, in the order of every transaction (``instances.locking``).
    instances = lock_instances(tx, differing.keys() | strays)
    kept = quarantine.lock_kept(tx, newest.values())
    written = len(tx.outbox)
    # 3. Renew the hosts; only now is known which heartbeats count.
    heard = renew_hosts(tx, newest.values())
    tx.session.flush()
    # 4. Answer agents that ask for their epoch, unless the host was removed and registered again since step 1.
    tx.outbox += acceptances(tx, [h for h in heard if epochs.get(h.message.host, h.before) == h.before], carried)
    # 5. Guests on the wrong host, and addresses in quarantine because of a host.
    stray_guests.look_at(tx, heard, carried)
    quarantine.look_at(tx, heard, kept)
    # 6. Apply the differences.
    counting = {h.message.host for h in heard}
    late = {host: lateness(tx, newest[host]) for host in counting}
    found = [i for i in instances if i.host_id in counting and i.id in carried[i.host_id]]
    shown_guests.reconcile(tx, found, differing, late)
    # 7. Hosts at rest. Of hosts without a row nothing is kept: there may be any number of such names.
    busy = {getattr(m, "host", "") for m in tx.outbox[written:]}
    at_rest = {h.message.host for h in heard if h.registered} - busy
    return {
        host: rows_of(on_host.values())
        for host, on_host in carried.items()
        if host in at_rest
        and not differing.keys() & on_host
        and all(g.instance_id in on_host for g in newest[host].guests)
    }


def _read_carried(
    tx: Transaction, hosts: Iterable[str]
) -> tuple[dict[str, dict[str, tuple[State, int]]], dict[str, int]]:
    """State and generation of the instances of each host, and the epochs of hosts that have some. Hosts without a row
    are included: guests of a force-removed host are looked at when it comes back."""
    carried: dict[str, dict[str, tuple[State, int]]] = {host: {} for host in hosts}
    epochs: dict[str, int] = {}
    query = select(Instance.id, Instance.state, Instance.generation, Instance.host_id, Host.epoch)
    query = query.join(Host, Host.id == Instance.host_id).where(among(Instance.host_id, carried))
    for instance_id, state, generation, host_id, epoch in tx.session.execute(query):
        carried[host_id or ""][instance_id] = State(state), generation
        epochs[host_id or ""] = epoch
    return carried, epochs
