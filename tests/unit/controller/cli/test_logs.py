"""Log lines: readable, bounded, without secrets."""

import json
import os
import subprocess
import sys
from pathlib import Path

from controller.cli.logs import hide_secrets

PROGRAM = """
import os, sys
from dataclasses import replace
from pathlib import Path
import structlog
from controller.cli import logs
from controller.conf import Settings
settings = Settings()
settings = replace(settings, general=replace(settings.general, log_format=sys.argv[2]))
logs.MAX_BYTES = 4000
log = structlog.get_logger("made before")
logs.set_up_logging(settings, Path(sys.argv[1]))
for n in range(int(sys.argv[3])):
    log.info("event", number=n, url="amqp://user:geheim@broker//", password="geheim")
    os.write(2, b"printed by a library\\n")
try:
    local = "gehe" + "im"
    raise ValueError("wrong")
except ValueError:
    log.exception("failed")
"""

# The second file cannot be opened at once: as on a disk that is full.
FULL = """
import errno, logging
real, times = logging.FileHandler._open, []
def opened(handler):
    times.append(1)
    if 2 <= len(times) <= 5:
        raise OSError(errno.ENOSPC, "No space left on device")
    return real(handler)
logging.FileHandler._open = opened
"""


def logged(file: Path, form: str, count: int, before: str = "") -> list[str]:
    subprocess.run([sys.executable, "-c", before + PROGRAM, str(file), form, str(count)], check=True, timeout=60)
    return file.read_text().splitlines()


def test_text(tmp_path: Path) -> None:
    lines = logged(tmp_path / "log" / "a.log", "text", 1)
    assert "event" in lines[0]
    assert "amqp://***@broker" in lines[0]
    assert lines[1] == "printed by a library"
    assert "Traceback" in "\n".join(lines)
    assert "geheim" not in "\n".join(lines)


def test_json(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in logged(tmp_path / "a.log", "json", 1) if line.startswith("{")]
    assert (lines[0]["event"], lines[0]["number"], lines[0]["level"]) == ("event", 0, "info")
    assert "ValueError: wrong" in lines[1]["exception"]
    assert "geheim" not in json.dumps(lines)


def test_files_are_bounded_and_nothing_printed_is_lost(tmp_path: Path) -> None:
    logged(tmp_path / "a.log", "text", 300)
    files = sorted(tmp_path.iterdir())
    assert 1 < len(files) <= 6
    assert all(f.stat().st_size < 10_000 for f in files)
    assert all("printed by a library" in f.read_text() for f in files[1:])


def test_a_new_file_that_finds_no_room_is_begun_later(tmp_path: Path) -> None:
    lines = logged(tmp_path / "a.log", "text", 50, before=FULL)
    assert len(list(tmp_path.iterdir())) == 2  # so it is the one that was not there at first
    assert any("number=49" in line for line in lines)
    assert "printed by a library" in lines


def test_secrets_are_known_by_their_names() -> None:
    event = {"event": "x", "token": "t", "secret_key": "s", "tokens": 3, "url": "http://a:b@c/d", "plain": "a:b@c"}
    assert hide_secrets(None, "info", event) == {
        "event": "x",
        "token": "***",
        "secret_key": "***",
        "tokens": 3,
        "url": "http://***@c/d",
        "plain": "a:b@c",
    }


JOURNAL = """
import os, structlog
from dataclasses import replace
from controller.cli import logs
from controller.conf import Settings
logs.set_up_logging(replace(Settings(), general=replace(Settings().general, log_level="DEBUG")))
log = structlog.get_logger("x")
log.debug("a")
log.info("b")
log.warning("c")
log.error("d")
try:
    raise ValueError("wrong")
except ValueError:
    log.exception("e")
"""


def to_stderr(*, journal: bool) -> list[str]:
    """The lines of a process whose standard error is the journal, or only says so of another stream."""
    read, write = os.pipe()
    status = os.fstat(write)
    named = f"{status.st_dev}:{status.st_ino if journal else status.st_ino + 1}"
    with os.fdopen(read) as lines:
        environment = {**os.environ, "JOURNAL_STREAM": named}
        subprocess.run([sys.executable, "-c", JOURNAL], check=True, timeout=60, stderr=write, env=environment)
        os.close(write)
        return lines.read().splitlines()


def test_the_journal_gets_the_priority_of_each_line() -> None:
    lines = to_stderr(journal=True)
    assert [line[:3] for line in lines[:5]] == ["<7>", "<6>", "<4>", "<3>", "<3>"]
    assert len(lines) > 7
    assert {line[:3] for line in lines[4:]} == {"<3>"}  # the traceback, line by line
    assert lines[-1].endswith("ValueError: wrong")


def test_what_is_not_the_journal_gets_none() -> None:
    assert not any(line.startswith("<") for line in to_stderr(journal=False))
