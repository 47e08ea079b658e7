"""Takes heartbeats into the rows of their hosts: renews hosts that are known, registers new ones."""

from collections.abc import Iterable, Sequence
from functools import lru_cache

import structlog
from sqlalchemy import case, literal, select, update
from sqlalchemy.orm.attributes import set_committed_value

from controller.db.bulk import among
from controller.db.models import Host
from controller.domain.agent_messages import check
from controller.domain.checks import one_line
from controller.domain.drift import drift
from controller.domain.host_facts import CAPACITIES, DRIFTING
from controller.domain.messages import PROBE_PENDING, HostReported
from controller.operations.cloud import Transaction
from controller.operations.hosts.fencing import Heard, catch_up, hear_removed, remarks_text
from controller.operations.hosts.hosts import register, set_facts
from controller.operations.hosts.lateness import is_late, newest_of, set_aside, warn_of_clocks
from controller.operations.instances.locking import chunks

log = structlog.get_logger(__name__)


def renew_hosts(tx: Transaction, messages: Iterable[HostReported]) -> list[Heard]:
    """Renew the rows of these hosts by the newest heartbeat of each, and register new hosts if registration is open.

    An unchanged host costs a share of one SELECT and one UPDATE. Guests are not looked at here. Nothing is written of
    hosts that never joined while registration is not open.

    Returns:
        One ``Heard`` for each host whose heartbeat counts, hosts without a row included; none that came late.

    Raises:
        PoisonMessage: a heartbeat that cannot be true.
    """
    newest = newest_of(messages)
    for message in newest.values():
        check(message)
    # Locked in the order in which claims lock them.
    query = select(Host).where(among(Host.id, newest)).order_by(Host.id).with_for_update(key_share=True)
    hosts = {h.id: h for h in tx.session.scalars(query.execution_options(populate_existing=True))}
    believed: list[Heard] = []
    unchanged = []
    unknown: dict[str, HostReported] = {}
    for host_id in sorted(newest):
        message, host = newest[host_id], hosts.get(host_id)
        if host is not None and is_late(host, message):
            set_aside(host, message)
            continue
        if host is None and not _is_open(tx):
            unknown[host_id] = message
            _log_unknown(host_id)
        elif host is None:
            epoch = register(tx, message).epoch
            believed.append(Heard(message, True, epoch, before=epoch))
        else:
            before = host.epoch
            _renew(tx, host, message)
            if not tx.session.is_modified(host):
                unchanged.append((host, message.sequence))
            believed.append(Heard(message, True, host.epoch, before))
    _write_seen(tx, unchanged)
    warn_of_clocks(tx, [*(heard.message for heard in believed), *unknown.values()])
    epochs = hear_removed(tx, unknown) if unknown else {}
    for host_id, message in unknown.items():
        epoch = epochs.get(host_id, 0)
        believed.append(Heard(message, False, epoch, before=epoch))
    return believed


def _renew(tx: Transaction, host: Host, message: HostReported) -> None:
    """Write a heartbeat to the host's row; its time and number only if anything else has changed (``_write_seen``)."""
    before = _registered(host)
    host.up = True
    set_facts(tx, host, message)
    catch_up(host, message)
    host.remarks = remarks_text(message)
    host.drift = drift(host.drift, before, _registered(host), _notes(host, message))
    if tx.session.is_modified(host):
        host.last_seen_at, host.heartbeat_sequence = tx.now, message.sequence


def _write_seen(tx: Transaction, heard: Sequence[tuple[Host, int]]) -> None:
    """Write when these unchanged hosts were seen, and the number of each heartbeat, by one statement."""
    numbers = {host.id: literal(sequence, Host.heartbeat_sequence.type) for host, sequence in heard}
    for ids in chunks(list(numbers)):
        sequence = case({host_id: numbers[host_id] for host_id in ids}, value=Host.id)
        tx.session.execute(
            update(Host)
            .where(among(Host.id, ids))
            .values(last_seen_at=tx.now, heartbeat_sequence=sequence)
            .execution_options(synchronize_session=False)
        )
    for host, number in heard:
        set_committed_value(host, "last_seen_at", tx.now)
        set_committed_value(host, "heartbeat_sequence", number)


def _registered(host: Host) -> dict[str, str]:
    return {fact.name: str(getattr(host, fact.name)) for fact in DRIFTING}


def _notes(host: Host, message: HostReported) -> list[str]:
    """What else is wrong with the host now, as its drift notes it."""
    notes = []
    if message.probe_error not in ("", PROBE_PENDING):
        notes.append(f"MAC probe: {one_line(message.probe_error[:200]).replace(';', ',')}")
    for capacity in CAPACITIES:
        used, limit = getattr(host, capacity.used), getattr(host, capacity.limit)
        if used > limit:
            notes.append(f"{used} {capacity.unit} are claimed, {limit} may be")
    return notes


def _is_open(tx: Transaction) -> bool:
    setting = tx.settings.controller.open_registration
    return tx.settings.embedded_bus if setting == "auto" else setting == "true"


@lru_cache(maxsize=1000)
def _log_unknown(host_id: str) -> None:
    """Log it once for each host, of a thousand hosts."""
    log.warning("heartbeat of a host that has not joined", host=host_id)
