"""Where a fault may strike in the life of many instances."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from controller.domain.states import State
from tests.faults import Row
from tests.labs.faults.workload import COUNT, Workload
from tests.labs.site_processes import SiteProcesses

# What a row is run ``on``.
Engines = tuple[str, ...]
POSTGRESQL: Engines = ("postgresql",)
BOTH: Engines = ("postgresql", "mariadb")

STEPS = {
    "requested": f"{COUNT} instances accepted, the scheduler inside its claim's transaction",
    "building": f"{COUNT} instances claimed, guests booting",
    "deleting": f"{COUNT} instances being deleted",
}
_PATIENCE = {
    "postgresql": "SET idle_in_transaction_session_timeout = 0",
    "mysql": "SET idle_transaction_timeout = 0",
}


def at_each_step(fault: str, seen: str, on: Mapping[str, Engines] | None = None) -> dict[str, Row]:
    """A row for each step, run ``on`` the databases that are given for it."""
    return {step: Row(fault, strikes, seen, (on or {}).get(step, ())) for step, strikes in STEPS.items()}


@contextmanager
def at(step: str, site: SiteProcesses, workload: Workload) -> Iterator[None]:
    """Be where the fault is to strike; it has struck when the context ends."""
    if step == "requested":
        with placing_held_up(site):
            workload.launch(COUNT)
            assert workload.states() == {State.REQUESTED: COUNT}
            yield
        return
    workload.launch(COUNT)
    if step == "building":
        workload.wait_some(State.BUILDING)
    else:
        workload.prove()
        workload.delete(workload.launched)
    yield


@contextmanager
def placing_held_up(site: SiteProcesses) -> Iterator[None]:
    """A stranger's lock on the hosts' rows: a scheduler comes as far as its claim, and waits there."""
    engine = site.rows.database.engine
    with engine.connect() as stranger:
        stranger.execute(text(_PATIENCE[engine.dialect.name]))
        stranger.execute(text("SELECT id FROM hosts ORDER BY id FOR UPDATE"))
        try:
            yield
        finally:
            with suppress(DBAPIError):  # it went with the database
                stranger.rollback()
