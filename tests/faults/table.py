"""Rows of the fault matrix, said by the tests themselves and collected from them."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import pytest

Test = TypeVar("Test", bound=Callable[..., Any])

TESTS = Path(__file__).parents[1]
DOCUMENT = TESTS.parent / "docs" / "faults.md"
# Where a test leaves its rows for the table.
ATTRIBUTE = "fault_rows"

HEAD = """\
# What happens when something breaks

Each row is a test that breaks a real thing and looks at what the cloud made of it. Where a row says nothing else, the
test also holds, once the fault is over and within a bounded time: every request that was accepted has ended as it was
asked or in ERROR with a reason, `pileus audit` finds nothing, and no guest that ran before was restarted. What is run
on several databases has them in its name: `[requested-{postgresql,mariadb}]`.

Written by `python -m tests.faults --write` from the tests; do not edit it by hand.
"""


@dataclass(frozen=True)
class Row:
    """One line of the matrix."""

    fault: str
    strikes: str  # where in the work it strikes
    seen: str  # what the test sees, and holds
    on: tuple[str, ...] = ()  # the databases it is run on, where the test takes an ``engine``


@dataclass(frozen=True)
class Family:
    """The rows of one test module, each with the test that holds it."""

    title: str
    rows: tuple[tuple[Row, str], ...]


def row(*, fault: str, strikes: str, seen: str, on: tuple[str, ...] = ()) -> Callable[[Test], Test]:
    """The test shows this row; may be said several times. ``on`` as in ``each_row``."""

    def mark(test: Test) -> Test:
        said = Row(fault, strikes, seen, on)
        _keep(test, {"": said})
        return _on_engines(test, {"": said}) if on else test

    return mark


def each_row(argument: str, cases: Mapping[str, Row]) -> Callable[[Test], Test]:
    """Run the test once for each case, with the case's name as this argument; each is a row.

    Where the rows say ``on`` what, it is run once on each, with the database's name for the fixture ``engine``.
    """

    def mark(test: Test) -> Test:
        _keep(test, cases)
        if any(said.on for said in cases.values()):
            return _on_engines(test, cases, argument)
        marked: Test = pytest.mark.parametrize(argument, list(cases))(test)
        return marked

    return mark


def _on_engines(test: Test, cases: Mapping[str, Row], argument: str = "") -> Test:
    """One run for each case and database."""
    runs = [(case, engine) for case, said in cases.items() for engine in said.on]
    marked: Test = pytest.mark.parametrize(
        [argument, "engine"] if argument else ["engine"],
        runs if argument else [(engine,) for _, engine in runs],
        ids=[_name(case, (engine,)) for case, engine in runs],
        indirect=["engine"],
        scope="module",
    )(test)
    return marked


def _name(case: str, engines: tuple[str, ...]) -> str:
    """What pytest calls the runs of a case, as a shell writes several."""
    several = engines[1:]
    return "-".join(filter(None, [case, f"{{{','.join(engines)}}}" if several else "".join(engines)]))


def _keep(test: Callable[..., Any], cases: Mapping[str, Row]) -> None:
    # Decorators run from the bottom up; the table shows their rows from the top down.
    setattr(test, ATTRIBUTE, [*cases.items(), *getattr(test, ATTRIBUTE, [])])


def modules() -> list[ModuleType]:
    """The test modules that say rows, by name."""
    found = []
    for path in sorted(TESTS.rglob("test_*.py")):
        if "tests.faults import" in path.read_text():
            name = ".".join(path.relative_to(TESTS.parent).with_suffix("").parts)
            found.append(importlib.import_module(name))
    return found


def functions_of(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """The test functions that a module defines itself, in the order of its lines."""
    return {
        name: value
        for name, value in vars(module).items()
        if name.startswith("test_") and inspect.isfunction(value) and value.__module__ == module.__name__
    }


def family(module: ModuleType) -> Family:
    """The rows of a module's tests; its docstring's first line is the title."""
    path = "/".join(module.__name__.split("."))
    rows = [
        (said, f"{path}.py::{name}" + (f"[{run}]" if run else ""))
        for name, test in functions_of(module).items()
        for case, said in getattr(test, ATTRIBUTE, [])
        for run in [_name(case, said.on)]
    ]
    return Family((module.__doc__ or module.__name__).splitlines()[0].rstrip("."), tuple(rows))


def document() -> str:
    """The whole of ``docs/faults.md``."""
    parts = [HEAD]
    for found in filter(lambda f: f.rows, map(family, modules())):
        lines = [f"## {found.title}", "", "| fault | where it struck | what was seen | test |", "|---|---|---|---|"]
        lines += [f"| {said.fault} | {said.strikes} | {said.seen} | `{test}` |" for said, test in found.rows]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)
