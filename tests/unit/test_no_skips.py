"""Under CI=true a skipped system test is a failure."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TESTS = """
import pytest

@pytest.mark.system
def test_skipped():
    pytest.skip("no root")

@pytest.mark.system
@pytest.mark.skipif(True, reason="no LVM")
def test_marked():
    pass

@pytest.mark.system
@pytest.mark.xfail(reason="known")
def test_known():
    assert False

def test_unmarked():
    pytest.skip("whatever")
"""


@pytest.mark.parametrize(
    ("ci", "summary"), [("true", "1 failed, 1 skipped, 1 xfailed, 1 error"), ("", "3 skipped, 1 xfailed")]
)
def test_a_skip_of_a_system_test(tmp_path: Path, ci: str, summary: str) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = system: real parts\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.plugins.no_skips", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "CI": ci, "PYTEST_ADDOPTS": ""},
    )
    assert summary in done.stdout
    assert ("no root" in done.stdout) == bool(ci)
