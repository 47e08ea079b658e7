"""Who may change the networks of a host: one process at a time."""

import fcntl
from pathlib import Path

import pytest

from controller.domain.errors import Unavailable
from network import reconciler
from network.queries import Rows
from network.reconciler import NetworkReconciler
from tests.labs.cloud import make_settings

pytestmark = pytest.mark.timeout(30)


def _nothing() -> Rows:
    raise AssertionError("the rows are read while another process has the networks")


def test_lock_of_another_process_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciler, "_LOCK_S", 0.1)
    settings = make_settings(tmp_path)
    (tmp_path / "network").mkdir()
    with (tmp_path / "network" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Unavailable, match="another process"):
            NetworkReconciler(settings).reconcile(_nothing, verify=False)
        with pytest.raises(Unavailable, match="another process"):
            NetworkReconciler(settings).observed(_nothing)


def test_who_is_another_user_cannot_lock_the_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To read a file is enough to lock it; no network was reconciled as long as another user did."""
    monkeypatch.setattr(reconciler, "_LOCK_S", 0.1)
    (tmp_path / "network").mkdir()
    lock = tmp_path / "network" / "lock"
    lock.touch(0o644)  # as release 0.1 left it
    with lock.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Unavailable):
            NetworkReconciler(make_settings(tmp_path)).observed(_nothing)
    assert lock.stat().st_mode & 0o777 == 0o600
