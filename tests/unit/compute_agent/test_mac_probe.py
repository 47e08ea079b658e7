"""The site's own MAC probe: real programs that answer, hang, print rubbish, or print for ever."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from compute_agent.mac_probe import MacProbe, MacReport, macs_of_file, macs_of_program, make_probe
from controller.conf.settings import Compute
from controller.domain.errors import CommandFailed, ConfigurationError
from controller.domain.messages import PROBE_PENDING

A, B = "52:54:00:00:00:0a", "52:54:00:00:00:0b"


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., str]:
    """A program of the site's, by its text."""

    def make(text: str, interpreter: str = "/bin/sh") -> str:
        path = tmp_path / f"probe-{len(list(tmp_path.iterdir()))}"
        path.write_text(f"#!{interpreter}\n{text}\n")
        path.chmod(0o755)
        return str(path)

    return make


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def test_what_a_program_prints(program: Callable[[str], str]) -> None:
    path = program(f"echo '# the cards'; echo {B.upper()}; echo '{A}  # eth0'; echo; echo {A.replace(':', '-')}")
    assert macs_of_program([path], 10) == (A, B)
    assert macs_of_program([program("true")], 10) == ()


def test_arguments_are_a_list_and_no_shell_reads_them(program: Callable[[str], str], tmp_path: Path) -> None:
    path = program('[ "$1" = "a b" ] && [ "$2" = ";touch x" ] && echo ' + A)
    probe = make_probe(Compute(mac_probe=f"{path} 'a b' ';touch x'"), "h1")
    assert probe is not None
    assert probe.report("h1") == MacReport(None, PROBE_PENDING)
    probe.refresh()
    assert probe.report("h1") == MacReport((A,), "")


@pytest.mark.parametrize(
    "text", ["exec sleep 600", "sleep 600", "sleep 600 & echo $! >$0.pid", "trap '' TERM; sleep 600"]
)
def test_one_that_hangs_is_killed_with_all_it_started(program: Callable[[str], str], text: str) -> None:
    path = program(text)
    began = time.monotonic()
    with pytest.raises(CommandFailed, match=r"killed after 0\.3 s"):
        macs_of_program([path], 0.3)
    assert time.monotonic() - began < 5
    pid_file = Path(f"{path}.pid")
    if pid_file.exists():
        pid = int(pid_file.read_text())
        deadline = time.monotonic() + 5
        while runs(pid):
            assert time.monotonic() < deadline, "it still runs"
            time.sleep(0.01)


def test_one_that_hangs_does_not_hold_up_the_end(program: Callable[[str], str]) -> None:
    began = time.monotonic()
    with pytest.raises(CommandFailed):
        macs_of_program([program("sleep 600")], 300, lambda: True)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("echo hello", r"line 1 is invalid"),
        (f"echo {A}; echo '<html>'", r"line 2"),
        ("head -c 5000 /dev/urandom", "bad output"),
        ("yes", "prints more than 1048576 bytes"),
        (f"yes {A}", "prints more than"),
        ("seq 1000000", "line 1|more than"),
        ("seq -f 52:54:00:00:00:%g 1000000", "bad output|more than"),
        ("for i in 0 1 2 3 4 5 6 7; do seq -f 52:54:00:0$i:%03g 100 999 | sed 's/:\\(.\\)\\(..\\)$/:0\\1:\\2/'; done",
         "4096 MAC addresses at most"),
        ("echo no cards >&2; exit 3", "status 3: no cards"),
        ("kill -9 $$", "status -9"),
        ("yes >&2 & sleep 0.2; kill $!; exit 1", "status 1: "),
    ],
)  # fmt: skip
def test_rubbish_is_refused(program: Callable[[str], str], text: str, reason: str) -> None:
    with pytest.raises(CommandFailed, match=reason) as caught:
        macs_of_program([program(text)], 20)
    assert len(str(caught.value)) < 600


def test_a_million_lines_cost_little(program: Callable[..., str]) -> None:
    path = program("i = 0\nwhile i < 1000000:\n    print('52:54:00:00:00:0a', i)\n    i += 1", "/usr/bin/python3")
    began = time.monotonic()
    with pytest.raises(CommandFailed):
        macs_of_program([path], 30)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("path", ["/nonexistent/probe", "/etc/hostname", "/tmp"])
def test_one_that_cannot_be_run(path: str) -> None:
    with pytest.raises(CommandFailed):
        macs_of_program([path], 1)


@pytest.mark.parametrize("command", ["probe", "./probe", "bin/probe -x", "'/unended", "''"])
def test_a_probe_is_named_by_its_whole_path(command: str) -> None:
    with pytest.raises(ConfigurationError, match="mac_probe"):
        make_probe(Compute(mac_probe=command), "h1")


def test_no_probe() -> None:
    assert make_probe(Compute(), "h1") is None
    assert make_probe(Compute(mac_probe="  "), "h1") is None
    assert make_probe(Compute(driver="simulated", mac_probe="/bin/true"), "h1") is None


def test_the_last_good_list_stays(tmp_path: Path, program: Callable[[str], str]) -> None:
    answers = tmp_path / "macs"
    answers.write_text(A)
    probe = make_probe(Compute(mac_probe=program(f"cat {answers}")), "h1")
    assert probe is not None
    probe.refresh()
    answers.write_text("rubbish")
    probe.refresh()
    report = probe.report("h1")
    assert report.macs == (A,)
    assert "line 1" in report.error
    answers.write_text(B)
    probe.refresh()
    assert probe.report("h1") == MacReport((B,), "")


def test_unprintable_output_is_not_reported(program: Callable[[str], str]) -> None:
    probe = make_probe(Compute(mac_probe=program(r"printf 'a\000\033b' >&2; exit 1")), "h1")
    assert probe is not None
    probe.refresh()
    error = probe.report("h1").error
    assert "a\ufffd\ufffdb" in error
    assert error.isprintable()


def test_a_file_for_a_simulated_site(tmp_path: Path) -> None:
    file = tmp_path / "macs"
    file.write_text(f"# host mac\nsim-0001 {A}\nsim-0002 {B.upper()} # second\n\nsim-0001 {B}\n")
    assert macs_of_file(file) == {"sim-0001": (A, B), "sim-0002": (B,)}
    probe = make_probe(Compute(driver="simulated", simulated_macs_file=str(file)), "sim-0001")
    assert isinstance(probe, MacProbe)
    probe.refresh()
    assert probe.report("sim-0001").macs == (A, B)
    assert probe.report("sim-0003").macs == ()
    for bad in ("sim-0001\n", f"sim-0001 {A} {B}\n", "sim-0001 nonsense\n"):
        file.write_text(bad)
        with pytest.raises(ConfigurationError, match="line 1"):
            macs_of_file(file)
    os.remove(file)
    probe.refresh()
    assert probe.report("sim-0001").macs == (A, B)
    assert "No such file" in probe.report("sim-0001").error
