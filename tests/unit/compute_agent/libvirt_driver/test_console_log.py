"""A console keeps its end, below a size."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compute_agent.libvirt_driver import console_log


@given(st.lists(st.binary(max_size=40), max_size=8), st.integers(0, 100))
def test_a_console_keeps_its_end(tmp_path_factory: pytest.TempPathFactory, writes: list[bytes], limit: int) -> None:
    folder = tmp_path_factory.mktemp("console")
    for text in writes:
        with (folder / console_log.NAME).open("ab") as file:
            file.write(text)
        console_log.rotate(folder, 50)
        assert (folder / console_log.NAME).stat().st_size <= 50
    kept = console_log.read_end(folder, limit)
    assert len(kept) <= limit
    assert b"".join(writes).endswith(kept)
    if limit <= 50:
        assert kept == b"".join(writes)[max(0, sum(map(len, writes)) - limit) :]


def test_a_console_is_rotated_on_a_full_disk(tmp_path: Path) -> None:
    console, older = tmp_path / console_log.NAME, tmp_path / console_log.OLDER
    console.write_bytes(b"x" * 100)
    older.symlink_to("/dev/full")
    console_log.rotate(tmp_path, 50)
    assert console.stat().st_size == 0
    assert console_log.read_end(tmp_path, 10) == b""


def test_no_more_of_a_console_is_kept_than_may_be(tmp_path: Path) -> None:
    (tmp_path / console_log.NAME).write_bytes(bytes(range(200)))
    console_log.rotate(tmp_path, 50)
    assert (tmp_path / console_log.OLDER).read_bytes() == bytes(range(150, 200))
