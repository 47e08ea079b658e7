"""Rows whose generation is behind their agents': the database was restored from a backup, or a failover lost changes.

An agent ignores commands that are not newer than what it knows, so such a row is raised: by heartbeats, by reports, and
by agents' answers to commands that were outdated.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache

import structlog
from sqlalchemy import update

from controller.db.bulk import among
from controller.db.models import Instance
from controller.domain import states
from controller.domain.checks import LARGEST
from controller.domain.messages import OutdatedRequest
from controller.operations.cloud import Transaction
from controller.operations.instances.locking import LockedInstance, chunks
from controller.operations.instances.transitions import doorbells

log = structlog.get_logger(__name__)

# How many requests can be lost with a database, and the highest generation there can be: no controller ever sent more.
MOST_AHEAD = 100_000
MOST = LARGEST - MOST_AHEAD


def is_believable(instance: LockedInstance, generation: int) -> bool:
    """Whether an agent can have been sent this generation of the instance; if not, that is logged once."""
    if generation <= min(instance.generation + MOST_AHEAD, MOST):
        return True
    _log_nonsense(instance.id, instance.host_id or "", generation)
    return False


def is_awaited(instance: LockedInstance) -> bool:
    """Whether its host has a request to carry out, or something to remove."""
    return states.is_awaited(instance.state, on_host=instance.host_id is not None)


def is_outdated(instance: LockedInstance, answer: OutdatedRequest) -> bool:
    """Whether the agent has ignored the row's current request; an answer to a late command does not show that."""
    if not is_believable(instance, answer.newest):
        return False
    other_request = answer.generation == answer.newest == instance.generation and is_awaited(instance)
    return answer.newest > instance.generation or other_request


def catch_up(
    tx: Transaction, instances: Iterable[LockedInstance], newest: Mapping[str, int], ended: Collection[str] = ()
) -> None:
    """Raise locked instances to the ``newest`` generation that their agents know. If a request is still to be carried
    out, raise them by one more and send it again; not for those in ``ended``, whose agents have reported GONE."""
    by_generation: dict[int, list[LockedInstance]] = defaultdict(list)
    resent = []
    for instance in instances:
        awaited = is_awaited(instance) and instance.id not in ended
        by_generation[newest[instance.id] + awaited].append(instance)
        if awaited:
            resent.append(instance)
    for generation, alike in by_generation.items():
        for ids in chunks([i.id for i in alike]):
            tx.session.execute(
                update(Instance)
                .where(among(Instance.id, ids))
                .values(generation=generation)
                .execution_options(synchronize_session=False)
            )
        for instance in alike:
            log.warning(
                "generation was behind its agent's",
                instance=instance.id,
                host=instance.host_id,
                was=instance.generation,
                now=generation,
            )
            instance.generation = generation
    tx.outbox += doorbells(tx, resent)


@lru_cache(maxsize=1000)
def _log_nonsense(instance_id: str, host_id: str, generation: int) -> None:
    """Log it once for each instance, of a thousand instances."""
    log.warning("impossible generation ignored", instance=instance_id, host=host_id, generation=generation)


def remember(tx: Transaction, invented: Mapping[str, int]) -> None:
    """Write the generations of removals that are sent to other hosts than the rows name.

    A row that is on a host keeps its own generation: that is what its host knows. If the instance ever comes to the
    host of the removal, the agent there answers with its generation.
    """
    by_generation: dict[int, list[str]] = defaultdict(list)
    for instance_id, generation in invented.items():
        if generation <= MOST:
            by_generation[generation].append(instance_id)
    for generation, found in by_generation.items():
        for ids in chunks(sorted(found)):
            behind = Instance.generation < generation, Instance.generation >= generation - MOST_AHEAD
            tx.session.execute(
                update(Instance)
                .where(among(Instance.id, ids), Instance.host_id.is_(None), *behind)
                .values(generation=generation)
                .execution_options(synchronize_session=False)
            )
