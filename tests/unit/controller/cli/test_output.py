"""What is printed: aligned for a person, JSON for a program."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest

from controller.cli.operator import Operator
from controller.cli.output import iso, print_row, print_rows, printable

AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
ROWS = [{"id": "a", "at": AT, "n": None, "more": 1}, {"id": "longer", "at": AT, "n": True, "more": ["x", "y"]}]


def test_a_table_is_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(Operator(), ROWS, ["id", "at", "n"])
    assert capsys.readouterr().out.splitlines() == [
        "ID      AT                        N",
        "a       2026-01-02T03:04:05.678Z  -",
        "longer  2026-01-02T03:04:05.678Z  yes",
    ]


def test_json_has_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(Operator(output="json"), ROWS, ["id"])
    found = json.loads(capsys.readouterr().out)
    assert found[1] == {"id": "longer", "at": "2026-01-02T03:04:05.678Z", "n": True, "more": ["x", "y"]}


def test_one_thing(capsys: pytest.CaptureFixture[str]) -> None:
    print_row(Operator(), {"hosts": {"ready": 2, "down": 1}, "names": [], "x": 0})
    assert capsys.readouterr().out.splitlines() == ["hosts  ready 2, down 1", "names  -", "x      0"]


def test_times_are_in_utc() -> None:
    assert iso(AT.astimezone(timezone(timedelta(hours=5)))) == "2026-01-02T03:04:05.678Z"


def test_a_name_moves_no_cursor() -> None:
    assert printable("a\x1b[2Jb\nü") == "a\\x1b[2Jb\\nü"
