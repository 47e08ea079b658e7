"""Each Debian package that a test asks for by name is one that ``bin/test`` installs."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
_LISTS = re.compile(
    r"\b(?:cloud|host|network|test|soak)_packages\+?=\((.*?)\)(?:  #[^\n]*)?$", re.MULTILINE | re.DOTALL
)


def installed() -> set[str]:
    lists = _LISTS.findall((ROOT / "bin/lib/setup.sh").read_text())
    assert len(lists) == 6
    return {name for text in lists for line in text.splitlines() for name in line.partition("#")[0].split()}


def asked_for() -> dict[str, Path]:
    """What ``find_program(..., package=...)`` names, and the values of the tables ``_PROGRAMS``; each with a file."""
    found: dict[str, Path] = {}
    for file in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            values: list[ast.expr] = []
            if isinstance(node, ast.keyword) and node.arg == "package":
                values = [node.value]
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
                names = [t.id for t in node.targets if isinstance(t, ast.Name)]
                values = node.value.values if names == ["_PROGRAMS"] else []
            found |= {v.value: file for v in values if isinstance(v, ast.Constant) and isinstance(v.value, str)}
    return found


def test_what_tests_need_is_installed_for_them() -> None:
    asked, there = asked_for(), installed()
    assert {"busybox-static", "e2fsprogs", "iputils-ping"} <= set(asked)
    assert {package: str(file) for package, file in asked.items() if package not in there} == {}
