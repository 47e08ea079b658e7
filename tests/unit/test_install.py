"""What ``bin/install`` finds of earlier releases: copies of their units, programs that nothing runs from any more."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def call(function: str, *arguments: Path) -> "subprocess.CompletedProcess[str]":
    """A function of what ``bin/install`` sources."""
    script = '. "$0/bin/lib/setup.sh"; "$@"'
    argv = ["bash", "-euc", script, str(ROOT), function, *map(str, arguments)]
    return subprocess.run(argv, check=False, capture_output=True, text=True)


def remove_others(prefix: Path, *kept: str) -> None:
    run = call("remove_others", prefix, *map(Path, kept))
    assert run.returncode == 0, run.stderr


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


def test_a_second_install_keeps_the_running_release(tmp_path: Path) -> None:
    prefix = tmp_path / "pileus"
    now, before = f"{prefix}-0123456789ab", f"{prefix}-ba9876543210"
    for folder in (now, before):
        Path(folder).mkdir()
    remove_others(prefix, now, now)
    assert {str(p) for p in tmp_path.iterdir()} == {now, before}


def shadowed(units: Path, administrator: Path) -> list[str]:
    run = call("shadowed_units", units, administrator)
    assert run.returncode == 0
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


def test_programs_that_a_process_runs_from_are_in_use(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin/python"
    python.symlink_to(sys.executable)
    assert call("in_use", tmp_path).returncode == 1
    with subprocess.Popen([python, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert call("in_use", tmp_path).returncode == 0
        assert call("in_use", tmp_path / "bin").returncode == 1
        process.communicate(b"\n")
    assert call("in_use", tmp_path).returncode == 1


def test_what_the_build_names_is_copied_for_it() -> None:
    """``bin/install`` builds from a copy of the checkout."""
    setup = (ROOT / "setup.cfg").read_text()
    copied = next(line for line in (ROOT / "bin/install").read_text().splitlines() if "cp -r setup.cfg" in line).split()
    assert {"pyproject.toml", "README.md", "LICENSE"} <= set(copied)
    assert "license_files = LICENSE" in setup
    assert "file: README.md" in setup
