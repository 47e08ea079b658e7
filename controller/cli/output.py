"""Prints rows: an aligned table for a person, JSON for a program."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from controller.cli.operator import Operator

Row = Mapping[str, Any]


def row(source: object, *names: str) -> dict[str, Any]:
    """These attributes of an object."""
    return {name: getattr(source, name) for name in names}


def print_rows(operator: Operator, rows: Iterable[Row], columns: Sequence[str]) -> None:
    """A listing: JSON holds every field of the rows, the table these columns."""
    found = list(rows)
    if operator.output == "json":
        print_json(found)
        return
    lines = [[c.upper() for c in columns], *([_cell(r[c]) for c in columns] for r in found)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        click.echo("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def print_row(operator: Operator, document: Row) -> None:
    """One thing with all its fields."""
    if operator.output == "json":
        print_json(document)
        return
    width = max(map(len, document), default=0)
    for name, value in document.items():
        click.echo(f"{name.ljust(width)}  {_cell(value)}")


def print_json(document: object) -> None:
    """One JSON document."""
    click.echo(json.dumps(document, default=_plain, indent=2))


def iso(at: datetime) -> str:
    """A time in ISO 8601, UTC, to the millisecond."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def printable(text: str) -> str:
    """What a user named something must not move a terminal's cursor."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def counted(count: int, one: str, many: str = "") -> str:
    """A number of things: "1 host", "2 hosts"."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def _plain(value: object) -> object:
    return iso(value) if isinstance(value, datetime) else str(value)


def _cell(value: object) -> str:
    match value:
        case None | "":
            return "-"
        case bool():
            return "yes" if value else "no"
        case datetime():
            return iso(value)
        case Mapping():
            return printable(", ".join(f"{k} {_cell(v)}" for k, v in value.items())) or "-"
        case str() | int() | float() | Path():
            return printable(str(value))
        case Iterable():
            return printable(", ".join(map(_cell, value))) or "-"
    return printable(str(value))
