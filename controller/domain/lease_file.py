"""A file of pinned leases, as CSV or JSON: read row by row with the lines, written so that it reads back the same.

CSV has the header ``ip,mac,name,hosts``, the hosts separated by spaces or semicolons; JSON is a list of objects with
these keys, ``hosts`` a list or such a text. What the values mean is not looked at here.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

MAX_BYTES = 32 * 1024**2
MAX_ROWS = 1 << 16  # no network has more addresses
MAX_PINS = 1_000_000
COLUMNS = ("ip", "mac", "name", "hosts")
_SEPARATORS = re.compile(r"[\s;]+")
_SPACE = re.compile(r"[ \t\r\n]*")


class LeaseFormat(StrEnum):
    """How the file is written."""

    CSV = "csv"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class LeaseRow:
    """A lease as a file has it; ``line`` is where, from 1, or 0 for one that comes from no file."""

    line: int
    ip: str
    mac: str
    name: str
    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True, order=True)
class BadRow:
    """What is wrong in a line; line 0: with what is not in the file."""

    line: int
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}" if self.line else f"not in the file: {self.reason}"


@dataclass(frozen=True)
class LeaseFile:
    """The rows that could be read, and those that could not."""

    rows: Sequence[LeaseRow]
    bad: Sequence[BadRow] = ()


class _Unreadable(Exception):
    """The rest of the file cannot be read."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.bad = BadRow(line, reason)


def read_leases(data: bytes, form: LeaseFormat) -> LeaseFile:
    """Everything that the file says; never raises for what is in it."""
    rows: list[LeaseRow] = []
    bad: list[BadRow] = []
    pins = 0
    try:
        text = _text(data)
        for found in _csv_rows(text) if form is LeaseFormat.CSV else _json_rows(text):
            if isinstance(found, BadRow):
                bad.append(found)
                continue
            rows.append(found)
            pins += len(found.hosts)
            if len(rows) > MAX_ROWS or pins > MAX_PINS:
                raise _Unreadable(found.line, f"a file has at most {MAX_ROWS} leases and {MAX_PINS} pins")
    except _Unreadable as error:
        bad.append(error.bad)
    return LeaseFile(rows, bad)


def write_leases(rows: Iterable[LeaseRow], form: LeaseFormat) -> str:
    """The file of these leases; JSON has one line a lease too."""
    if form is LeaseFormat.CSV:
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows((r.ip, r.mac, r.name, " ".join(r.hosts)) for r in rows)
        return out.getvalue()
    objects = [json.dumps({"ip": r.ip, "mac": r.mac, "name": r.name, "hosts": list(r.hosts)}) for r in rows]
    return "[\n" + ",\n".join(f"  {o}" for o in objects) + "\n]\n" if objects else "[]\n"


def _text(data: bytes) -> str:
    if len(data) > MAX_BYTES:
        raise _Unreadable(1, f"the file is larger than {MAX_BYTES >> 20} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _Unreadable(data.count(b"\n", 0, error.start) + 1, "it is not text in UTF-8") from error


def _csv_rows(text: str) -> Iterator[LeaseRow | BadRow]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            if not any(c.strip() for c in cells):
                pass
            elif columns is None:
                columns = _header(line, cells)
            elif len(cells) != len(columns):
                yield BadRow(line, f"it has {len(cells)} columns, the header {len(columns)}")
            else:
                values = {column: cell.strip() for column, cell in zip(columns, cells, strict=True)}
                hosts = _split(values["hosts"])
                yield LeaseRow(line, values["ip"], values["mac"], values.get("name", ""), hosts)
            line = reader.line_num + 1
    except csv.Error as error:
        raise _Unreadable(line, f"it is no CSV: {error}; what follows was not read") from error
    if columns is None:
        raise _Unreadable(1, f"there is no header {','.join(COLUMNS)}")


def _header(line: int, cells: Sequence[str]) -> list[str]:
    columns = [c.strip().lower() for c in cells]
    if not {"ip", "mac", "hosts"} <= set(columns) <= set(COLUMNS) or max(Counter(columns).values()) > 1:
        raise _Unreadable(line, f"the first line has to be {','.join(COLUMNS)}, in any order")
    return columns


def _json_rows(text: str) -> Iterator[LeaseRow | BadRow]:
    """The objects of the list one by one, so that the line of each is known."""
    decoder = json.JSONDecoder(object_pairs_hook=_each_key_once)
    line, counted = 1, 0

    def skip(position: int) -> int:
        nonlocal line, counted
        found = _SPACE.match(text, position)
        end = found.end() if found else position
        line += text.count("\n", counted, end)
        counted = end
        return end

    position = skip(0)
    if text[position : position + 1] != "[":
        raise _Unreadable(line, "a JSON file has to be a list of objects")
    position = skip(position + 1)
    while text[position : position + 1] != "]":
        try:
            value, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            raise _Unreadable(line, f"it is no JSON: {str(error)[:80]}; what follows was not read") from error
        yield _object(line, value)
        position = skip(position)
        if text[position : position + 1] == ",":
            position = skip(position + 1)
            if text[position : position + 1] == "]":
                raise _Unreadable(line, "it is no JSON: a comma before the end of the list")
        elif text[position : position + 1] != "]":
            raise _Unreadable(line, "it is no JSON: a comma or the end of the list was expected")
    if skip(position + 1) != len(text):
        raise _Unreadable(line, "something follows the end of the list")


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any] | None:
    found = dict(pairs)
    return found if len(found) == len(pairs) else None


def _object(line: int, value: Any) -> LeaseRow | BadRow:
    if not isinstance(value, dict) or not {"ip", "mac", "hosts"} <= value.keys() <= set(COLUMNS):
        return BadRow(line, f"it has to be an object with the keys {', '.join(COLUMNS)}, each once")
    ip, mac, name, hosts = value["ip"], value["mac"], value.get("name") or "", value["hosts"]
    if isinstance(hosts, str):
        hosts = _split(hosts)
    if not all(isinstance(v, str) for v in (ip, mac, name)):
        return BadRow(line, "ip, mac and name have to be texts")
    if not isinstance(hosts, list | tuple) or not all(isinstance(h, str) for h in hosts):
        return BadRow(line, "hosts has to be a list of texts")
    return LeaseRow(line, ip.strip(), mac.strip(), name.strip(), tuple(h.strip() for h in hosts))


def _split(hosts: str) -> tuple[str, ...]:
    return tuple(h for h in _SEPARATORS.split(hosts) if h)
