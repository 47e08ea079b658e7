"""The benchmark of placement, on a few hosts: nothing unplaced, nothing given twice, a chart that is XML."""

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.bench import harness, place
from tests.bench.svg import bar_chart


def test_every_way_places_all() -> None:
    result = place.main(["--hosts", "33", "--instances", "100"])
    assert (result["unplaced"], result["breaches"]) == (0, 0)
    assert result["decisions_per_s"] == result["modes"]["pinned_singles"]  # type: ignore[index]
    assert ElementTree.fromstring(place.chart(result)).tag.endswith("svg")


def test_a_bar_chart_is_xml() -> None:
    chart = bar_chart("Rate & floor", "instances/s", {"one request": 812.5, "<singles>": 0})
    assert "&lt;singles&gt;" in "".join(ElementTree.fromstring(chart).itertext()).replace("<", "&lt;").replace(
        ">", "&gt;"
    )


def test_the_last_line_is_the_answer(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.bench.harness", "place", "--hosts", "4", "--instances", "8"]
    done = subprocess.run(
        [*command, "--chart", str(tmp_path / "c.svg")], capture_output=True, text=True, check=True, timeout=120
    )
    assert json.loads(done.stdout)["unplaced"] == 0
    assert "pinned_singles:" in done.stderr
    assert (tmp_path / "c.svg").read_text().startswith("<svg")


@pytest.mark.parametrize("argv", [[], ["nothing"], ["harness"], ["deployment"]])
def test_what_is_no_benchmark_is_a_usage_error(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert harness.run(argv) == 2
    assert "place" in capsys.readouterr().err
