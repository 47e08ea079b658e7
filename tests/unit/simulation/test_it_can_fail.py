"""The simulation finds bugs: each of these is put in, and one of the first seeds breaks a promise."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

from compute_agent.journal import Journal
from controller.operations import heartbeats, launch, lifecycle, sweeps
from controller.operations.cloud import Cloud, Transaction
from tests.simulation.database import Laboratory
from tests.simulation.site import run

_AT_MOST = 25
Patch = Callable[[pytest.MonkeyPatch], None]


def _nobody_rings_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sweeps, "ring", lambda tx: 0)


def _claims_are_kept(patch: pytest.MonkeyPatch) -> None:
    def forget(tx: Transaction, given_back: object) -> None:
        """Nothing is given back."""

    patch.setattr(lifecycle, "_give_back", forget)


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
    def earlier(tx: Transaction, request: launch.LaunchRequest) -> None:
        """No request is known."""

    patch.setattr(launch, "_earlier", earlier)


def _late_heartbeats_are_believed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(heartbeats, "_is_late", lambda host, message: False)


def _a_wrong_clock_is_believed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Cloud, "clock_error_s", lambda self: 0.0)


_BUGS: Iterable[Patch] = (
    _nobody_rings_again,
    _claims_are_kept,
    _old_commands_are_carried_out,
    _a_lost_token,
    _late_heartbeats_are_believed,
    _a_wrong_clock_is_believed,
)


@pytest.mark.parametrize("bug", _BUGS, ids=lambda b: b.__name__.strip("_"))
def test_a_bug_is_found(bug: Patch, laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        bug(patched)
        found = next((o for seed in range(_AT_MOST) if (o := run(seed, laboratory)).failed), None)
    assert found is not None
    assert f"python -m tests.simulation {found.seed}" in str(found)
