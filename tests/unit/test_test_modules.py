"""Helpers of the tests live in ``tests/labs``: a test module is imported by pytest alone."""

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]


def _imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names)


def _is_of_pytest(module: str) -> bool:
    parts = module.split(".")
    return parts[0] == "tests" and any(part.startswith("test_") or part == "conftest" for part in parts)


def test_no_module_imports_a_test_module_or_a_conftest() -> None:
    wrong = {str(f.relative_to(TESTS)): m for f in TESTS.rglob("*.py") for m in _imported(f) if _is_of_pytest(m)}
    assert wrong == {}


def test_there_is_one_fake_bus() -> None:
    fakes = [
        f"{file.relative_to(TESTS)}:{node.name}"
        for file in TESTS.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef)
        and not node.bases
        and "notify" in {f.name for f in node.body if isinstance(f, ast.FunctionDef)}
    ]
    assert sorted(fakes) == ["labs/bus.py:FakeBus", "simulation/bus.py:SimulatedBus"]
