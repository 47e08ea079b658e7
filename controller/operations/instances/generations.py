"""Rows whose generation is behind their agents': the database was restored from a backup, or a failover lost its end.

An agent heeds only what is newer than what it knows, so such a row is raised: from heartbeats, from reports, and from
what agents answer to commands that came too late.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache

import structlog
from sqlalchemy import update

from controller.db.bulk import among
from controller.db.models import Instance
from controller.domain.checks import LARGEST
from controller.domain.messages import OutdatedRequest
from controller.domain.states import TRANSITIONAL, State
from controller.operations.cloud import Transaction
from controller.operations.instances.locking import LockedInstance, chunks
from controller.operations.instances.transitions import doorbells

log = structlog.get_logger(__name__)

# A restored database is behind by no more generations than this; no controller ever gave one that is further ahead.
MOST_AHEAD = 100_000
MOST = LARGEST - MOST_AHEAD


def is_believable(instance: LockedInstance, generation: int) -> bool:
    """Whether an agent can know this generation of the instance; that it cannot is logged, once."""
    if generation <= min(instance.generation + MOST_AHEAD, MOST):
        return True
    _log_nonsense(instance.id, instance.host_id or "", generation)
    return False


def is_awaited(instance: LockedInstance) -> bool:
    """Whether its host still has a request to carry out."""
    return instance.state in TRANSITIONAL or (instance.state is State.ERROR and instance.host_id is not None)


def is_outdated(instance: LockedInstance, answer: OutdatedRequest) -> bool:
    """Whether the agent ignored the row's newest request. The answer to a late command says nothing new."""
    if not is_believable(instance, answer.newest):
        return False
    other_request = answer.generation == answer.newest == instance.generation and is_awaited(instance)
    return answer.newest > instance.generation or other_request


def catch_up(
    tx: Transaction, instances: Iterable[LockedInstance], newest: Mapping[str, int], ended: Collection[str] = ()
) -> None:
    """Raise locked instances to the ``newest`` generation that their agents know; beyond it, and the host told again,
    where a request is still to be carried out. ``ended``: those of which the agent has reported an end that counts."""
    by_generation: dict[int, list[LockedInstance]] = defaultdict(list)
    told = []
    for instance in instances:
        awaited = is_awaited(instance) and instance.id not in ended
        by_generation[newest[instance.id] + awaited].append(instance)
        if awaited:
            told.append(instance)
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
    tx.outbox += doorbells(tx, told)


@lru_cache(maxsize=1000)
def _log_nonsense(instance_id: str, host_id: str, generation: int) -> None:
    """Once for each of them, as long as there are not too many."""
    log.warning(
        "a generation that cannot be is not believed", instance=instance_id, host=host_id, generation=generation
    )


def remember(tx: Transaction, invented: Mapping[str, int]) -> None:
    """Write down the generations of removals that are sent to hosts which the rows do not name.

    A row that is on another host keeps its own: what that host knows counts there, and should the instance ever come
    to the first one, its agent answers at which generation it is.
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
