"""bin/install: what an upgrade takes away, and what it tells of units that an earlier release was copied with."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
INSTALL = ROOT / "bin" / "install"


def remove_others(prefix: Path, *kept: str) -> None:
    """Run that function of the script, and nothing else of it."""
    found = re.search(r"^remove_others\(\) \{\n.*?^\}\n", INSTALL.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    program = f'set -euo pipefail\nprefix=$1\n{found[0]}remove_others "$2" "$3"\n'
    subprocess.run(["bash", "-c", program, "bash", str(prefix), *kept], check=True, timeout=30)


def test_older_releases_go_and_nothing_else(tmp_path: Path) -> None:
    prefix = tmp_path / "pileus"
    now, before, older = f"{prefix}-0123456789ab", f"{prefix}-ba9876543210", f"{prefix}-aaaaaaaaaaaa"
    others = [f"{prefix}-backups", f"{prefix}-0123456789abc", f"{prefix}-old 1", f"{prefix}.new", f"{prefix}-"]
    for folder in (now, before, older, *others):
        Path(folder, "bin").mkdir(parents=True)
    remove_others(prefix, now, before)
    assert {str(p) for p in tmp_path.iterdir()} == {now, before, *others}


def test_the_first_release_has_none_before_it(tmp_path: Path) -> None:
    prefix = tmp_path / "pileus"
    remove_others(prefix, f"{prefix}-0123456789ab", f"{tmp_path}/")
    (tmp_path / "pileus-0123456789ab").mkdir()
    remove_others(prefix, f"{prefix}-0123456789ab", f"{tmp_path}/")
    assert [p.name for p in tmp_path.iterdir()] == ["pileus-0123456789ab"]


def test_a_release_that_is_installed_twice_leaves_the_one_that_still_runs(tmp_path: Path) -> None:
    prefix = tmp_path / "pileus"
    now, before = f"{prefix}-0123456789ab", f"{prefix}-ba9876543210"
    for folder in (now, before):
        Path(folder).mkdir()
    remove_others(prefix, now, now)
    assert {str(p) for p in tmp_path.iterdir()} == {now, before}


def shadowed(units: Path, administrator: Path) -> list[str]:
    script = '. "$0/bin/lib/setup.sh"; shadowed_units "$1" "$2"'
    run = subprocess.run(
        ["bash", "-euc", script, str(ROOT), str(units), str(administrator)], check=True, capture_output=True, text=True
    )
    return run.stdout.splitlines()


def test_copies_of_the_units_are_told(tmp_path: Path) -> None:
    for name in ("pileus@.service", "pileus@compute.service.d/host.conf", "pileus@compute.service.d/own.conf"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "multi-user.target.wants").mkdir()
    found = [f"{tmp_path}/pileus@.service", f"{tmp_path}/pileus@compute.service.d/host.conf"]
    assert shadowed(ROOT / "etc/systemd", tmp_path) == found


def test_without_copies_nothing_is_told(tmp_path: Path) -> None:
    assert shadowed(ROOT / "etc/systemd", tmp_path) == []
