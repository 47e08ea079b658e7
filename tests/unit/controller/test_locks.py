"""Locks between processes, here between two open files of one process, which flock(2) tells apart as well."""

from pathlib import Path

import pytest

from controller.locks import lock, try_lock


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as one, (tmp_path / "lock").open("w") as other:
        assert try_lock(one)
        assert not try_lock(other)
        assert not lock(other, 0.05)
        one.close()
        assert lock(other, 0)


def test_shared_locks_keep_an_exclusive_one_out(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    with path.open() as one, path.open() as other, path.open() as third:
        assert try_lock(one, shared=True)
        assert try_lock(other, shared=True)
        assert not try_lock(third)


def test_pause_ends_a_wait(tmp_path: Path) -> None:
    def stop(_: float) -> None:
        raise InterruptedError

    with (tmp_path / "lock").open("w") as one, (tmp_path / "lock").open("w") as other:
        assert try_lock(one)
        with pytest.raises(InterruptedError):
            lock(other, 60, pause=stop)


def test_content_of_the_file_stays(tmp_path: Path) -> None:
    (tmp_path / "pid").write_text("7\n")
    with (tmp_path / "pid").open("a+") as file:
        assert try_lock(file)
    assert (tmp_path / "pid").read_text() == "7\n"
