"""The simulation finds bugs: each of these is put in, and one of the first seeds breaks a promise."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import pytest
from sqlalchemy import select

from compute_agent.journal.journal import Journal
from controller.db.models import Lease, Network
from controller.domain import states
from controller.domain.sightings import SIGHTINGS, Sight
from controller.domain.states import Event, State
from controller.operations.cloud import Cloud, Transaction
from controller.operations.hosts import claims, fencing, force_removal, renewal, shown_guests, stray_guests
from controller.operations.instances import launch, reports, sweeps
from controller.operations.instances.launch_requests import LaunchRequest
from controller.operations.networks import pooled_leases
from controller.operations.networks.leases import is_free
from controller.operations.networks.pooled_leases import Addresses, claim_addresses
from scheduler import schedule
from tests.simulation.database import SimulationDatabase
from tests.simulation.oracle import ADDRESSES
from tests.simulation.scenarios import Scenario
from tests.simulation.site import run

_AT_MOST = 40
Patch = Callable[[pytest.MonkeyPatch], None]


def _no_second_notification(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sweeps, "notify", lambda tx: 0)


def _claims_are_kept(patch: pytest.MonkeyPatch) -> None:
    def forget(tx: Transaction, given_back: object) -> None:
        """Nothing is given back."""

    patch.setattr(claims, "give_back", forget)


def _old_commands_are_carried_out(patch: pytest.MonkeyPatch) -> None:
    real = Journal.record

    def record(self: Journal, host: str, guests: Sequence[Any]) -> Any:
        with self._write() as db:
            db.executemany(
                "UPDATE guests SET generation = -1 WHERE host = ? AND instance = ?",
                [(host, g.instance_id) for g in guests],
            )
        return real(self, host, guests)

    patch.setattr(Journal, "record", record)


def _a_lost_token(patch: pytest.MonkeyPatch) -> None:
    def earlier(tx: Transaction, request: LaunchRequest) -> None:
        """No request is known."""

    patch.setattr(launch, "_earlier", earlier)


def _late_heartbeats_are_believed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(renewal, "is_late", lambda host, message: False)


def _a_wrong_clock_is_believed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Cloud, "clock_error_s", lambda self: 0.0)


def _early_power_off_is_no_news(patch: pytest.MonkeyPatch) -> None:
    before_it_ran = (State.BUILDING, Event.SHUT_OFF)
    patch.setattr(states, "TRANSITIONS", {k: v for k, v in states.TRANSITIONS.items() if k != before_it_ran})
    patch.setattr(reports, "REFUSALS", {**states.REFUSALS, before_it_ran: "it is being built"})
    seen = (State.BUILDING, Sight.SHUT_OFF)
    patch.setattr(shown_guests, "SIGHTINGS", {k: v for k, v in SIGHTINGS.items() if k != seen})


def _rows_stay_behind_their_agents(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reports, "catch_up", lambda *_, **__: None)
    patch.setattr(shown_guests, "catch_up", lambda *_, **__: None)


def _all_singles_or_none(patch: pytest.MonkeyPatch) -> None:
    real = pooled_leases.choose_addresses

    def choose(tx: Transaction, network: Network, most: int) -> Addresses:
        found = real(tx, network, most)
        return found if len(found) == most else Addresses()

    patch.setattr(schedule, "choose_addresses", choose)


def _refused_ones_keep_addresses(patch: pytest.MonkeyPatch) -> None:
    real, choose = schedule._decide, pooled_leases.choose_addresses
    _all_singles_or_none(patch)

    def decide(tx: Transaction, instances: Any, specs: Any, strategies: Any, pools: Any, *rest: Any) -> Any:
        made = real(tx, instances, specs, strategies, pools, *rest)
        if made.refused and made.reason_code == ADDRESSES:
            pool = pools[made.refused[0].network_id]
            there = choose(tx, pool, len(made.refused))
            claim_addresses(tx, pool, made.refused[: len(there)], there)
        return made

    patch.setattr(schedule, "_decide", decide)


def _a_locked_lease_is_taken(patch: pytest.MonkeyPatch) -> None:
    def released(tx: Transaction, network: Network, most: int) -> Sequence[int]:
        mine = Lease.network_id == network.id, is_free(tx.now)
        query = select(Lease.id).where(*mine).order_by(Lease.released_at, Lease.id).limit(max(0, most))
        return tx.session.scalars(query.with_for_update(skip_locked=True)).all()

    patch.setattr(pooled_leases, "_released", released)


def _deletes_expire(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(states, "TRANSITIONS", {**states.TRANSITIONS, (State.DELETING, Event.EXPIRED): State.ERROR})


def _strays_go_at_once(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(stray_guests, "_SIGHTINGS_NEEDED", 1)
    patch.setattr(stray_guests, "_owner_shows_it", lambda *_: True)


def _addresses_are_not_kept(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(force_removal, "quarantine", lambda *_: None)


def _queues_of_removed_hosts_stay(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(fencing, "with_queues", lambda tx: [])


_BUGS: Mapping[Patch, Collection[Scenario] | None] = {
    _no_second_notification: None,
    _claims_are_kept: None,
    _old_commands_are_carried_out: None,
    _a_lost_token: None,
    _late_heartbeats_are_believed: None,
    _a_wrong_clock_is_believed: None,
    _early_power_off_is_no_news: (Scenario.EARLY_OFF,),
    _rows_stay_behind_their_agents: (Scenario.RESTORED,),
    _all_singles_or_none: (Scenario.SHORTAGE,),
    _refused_ones_keep_addresses: (Scenario.SHORTAGE,),
    _a_locked_lease_is_taken: (Scenario.SHORTAGE, Scenario.LOCKS),
    _deletes_expire: (Scenario.SILENCE,),
    _strays_go_at_once: (Scenario.RENAMED,),
    _addresses_are_not_kept: (Scenario.REMOVED, Scenario.SHORTAGE),
    _queues_of_removed_hosts_stay: (Scenario.REMOVED,),
}


# Found within few seeds; the others are not among the fast tests.
_FAST_BUGS = {_no_second_notification, _claims_are_kept, _old_commands_are_carried_out}


@pytest.mark.parametrize(
    "bug",
    [pytest.param(b, id=b.__name__.strip("_"), marks=[] if b in _FAST_BUGS else [pytest.mark.slow]) for b in _BUGS],
)
def test_a_bug_is_found(bug: Patch, sim_database: SimulationDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the scenario given, these seeds find what five times as many find that draw theirs: 200."""
    with monkeypatch.context() as patched:
        bug(patched)
        found = next(
            (o for seed in range(_AT_MOST) if (o := run(seed, sim_database, scenarios=_BUGS[bug])).failed), None
        )
    assert found is not None
    assert f"python -m tests.simulation {found.seed}" in str(found)
