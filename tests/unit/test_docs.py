"""What the documents name is there."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("docs/*.md"), ROOT / "README.md"])
_CODE = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(r"[\w.-]+(/[\w.-]+)*/?")
_ENDINGS = (".py", ".md", ".toml", ".cfg", ".lock")
# Words of protocols, entry points and libraries, in the shape of our names.
_NOT_OURS = {
    "UserData",
    "InstanceInitiatedShutdownBehavior",
    "Client.InstanceInitiatedShutdown",
    "pileus.services",
    "ConfigUpdater",
    "urllib.request",
}
_MADE_AT_RUN_TIME = {"pileus.conf"}


@cache
def _files() -> tuple[str, ...]:
    tops = [p for p in ROOT.iterdir() if p.name[0] not in "._" or p.name == ".ci"]
    below = (f for top in tops if top.is_dir() for f in top.rglob("*") if "__pycache__" not in f.parts)
    return tuple(f"/{f.relative_to(ROOT)}{'/' if f.is_dir() else ''}" for f in [*tops, *below])


def _named(page: Path) -> Iterator[str]:
    text = re.sub(r"^( {4}.*\n|```.*?^```)", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    yield from _CODE.findall(text)


def _is_there(path: str) -> bool:
    """A path from the top, or the end of one where the sentence has named the beginning."""
    return any(f.endswith((f"/{path}", f"/{path}/")) for f in _files())


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_file_that_is_named_exists(page: Path) -> None:
    tops = {f.split("/")[1] for f in _files() if f.count("/") > 1}
    paths = {n for n in _named(page) if _PATH.fullmatch(n) and n not in _MADE_AT_RUN_TIME}
    ours = {p for p in paths if p.endswith(_ENDINGS) or ("/" in p and p.split("/")[0] in tops)}
    assert sorted(p for p in ours if not _is_there(p)) == []


@cache
def _definitions() -> dict[str, set[str]]:
    """What each module defines, by the module's last name; of ``__init__`` by the package's."""
    found: dict[str, set[str]] = {}
    for package in ("controller", "scheduler", "network", "compute_agent", "api"):
        for file in (ROOT / package).rglob("*.py"):
            name = file.parent.name if file.stem == "__init__" else file.stem
            names = found.setdefault(name, set())
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.FunctionDef | ast.ClassDef):
                    names.add(node.name)
                elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    names.add(node.id)
    return found


def test_every_name_in_the_architecture_is_defined() -> None:
    definitions = _definitions()
    everything = set().union(*definitions.values())
    missing = []
    for name in _named(ROOT / "docs/architecture.md"):
        parts = name.split(".")
        if not re.fullmatch(r"\w+(\.\w+)*", name) or name in _NOT_OURS or name.endswith(_ENDINGS):
            continue
        if len(parts) == 1:
            is_class = re.fullmatch(r"([A-Z][a-z]+){2,}", name)
            there = not is_class or name in everything
        elif parts[0][0].isupper():
            there = set(parts) <= everything
        else:
            there = parts[1] in definitions.get(parts[0], ())
        if not there:
            missing.append(name)
    assert missing == []
